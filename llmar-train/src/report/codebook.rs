//! The codebook on the Poincaré disk.

use std::collections::BTreeMap;

use llmar::device::Geometry;
use serde::Serialize;

use super::html::{Part, number};
use super::material::{Codes, Material, STAGE1};
use crate::error::Result;
use crate::evaluate::Side;

const TITLE: &str = "Codebook";
/// Rounds of the power iteration. Codes whose leading directions are that close in size may as well be drawn along either.
const ROUNDS: usize = 300;
/// Labels named for a code.
const TOP: usize = 4;

#[derive(Debug, Serialize)]
struct Disk {
    dots: Vec<Dot>,
    /// Class names of the archive, for the dots' colours.
    labels: Vec<String>,
    /// Distances from the origin at which the disk has circles: (distance, radius in the disk).
    circles: Vec<(f64, f64)>,
    /// Whether there are uses.
    counted: bool,
}

/// One code; positions are in the unit disk.
#[derive(Debug, PartialEq, Serialize)]
struct Dot {
    /// The distance from the origin kept.
    exact: [f64; 2],
    /// The point projected on the plane.
    flat: [f64; 2],
    /// Distance from the origin.
    distance: f64,
    uses: usize,
    /// (label, uses), most first.
    top: Vec<(usize, usize)>,
}

/// All codes in two dimensions, with their uses by class where clips were turned into tokens.
pub fn section(material: &Material) -> Result<Part> {
    let Some(codes) = &material.codebook else {
        return Part::missing(TITLE, format!("{STAGE1} and model.llmar are missing"));
    };
    let plane = plane(&codes.tangent, codes.config.dim);
    let uses = material.side.as_ref().zip(material.sentences.as_ref()).map(|(side, sentences)| uses(codes.config.codes, side, sentences));
    let counted = uses.is_some();
    let uses = uses.unwrap_or_else(|| vec![BTreeMap::new(); codes.config.codes]);
    let labels = material.side.as_ref().map(|side| side.archive.classes.clone()).unwrap_or_default();
    let dots: Vec<Dot> = dots(codes, &plane).into_iter().zip(uses).map(|(dot, uses)| with_uses(dot, &uses)).collect();
    let html = explanation(codes, &plane, &dots, counted);
    Part::shown("codebook", TITLE, html, &Disk { circles: circles(codes, &dots), dots, labels, counted })
}

/// Uses of each code by class of the clip.
fn uses(codes: usize, side: &Side, sentences: &[Vec<u16>]) -> Vec<BTreeMap<usize, usize>> {
    let mut uses = vec![BTreeMap::new(); codes];
    for (&clip, sentence) in side.chosen.iter().zip(sentences) {
        for &token in sentence {
            *uses[usize::from(token)].entry(side.archive.labels[clip]).or_default() += 1;
        }
    }
    uses
}

fn with_uses(dot: Dot, uses: &BTreeMap<usize, usize>) -> Dot {
    let mut top: Vec<(usize, usize)> = uses.iter().map(|(&label, &n)| (label, n)).collect();
    top.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    top.truncate(TOP);
    Dot { uses: uses.values().sum(), top, ..dot }
}

/// A plane through the origin of the tangent space.
#[derive(Debug)]
struct Plane {
    /// Two orthonormal directions.
    axes: [Vec<f64>; 2],
    /// Share of Σ‖v‖² that lies in it, 0..=1.
    share: f64,
}

/// The plane that holds most of Σ‖v‖²: principal components about the origin, which must stay where it is. Power iteration through the vectors
/// themselves, so that no dim × dim matrix is formed; one vector after the other, the second kept orthogonal to the first.
fn plane(tangent: &[f32], dim: usize) -> Plane {
    let rows: Vec<Vec<f64>> = tangent.chunks_exact(dim).map(|v| v.iter().map(|x| f64::from(*x)).collect()).collect();
    let total: f64 = rows.iter().map(|v| dot(v, v)).sum();
    let mut axes: [Vec<f64>; 2] = [vec![], vec![]];
    let mut held = 0.0;
    for index in 0..2 {
        let first = if index == 0 { None } else { Some(axes[0].clone()) };
        // Every direction in turn as a start would do; an uneven one is orthogonal to none of them.
        let mut axis: Vec<f64> = (0..dim).map(|i| 1.0 + 1.0 / (i + index + 1) as f64).collect();
        for _ in 0..ROUNDS {
            remove(&mut axis, first.as_deref());
            let mut next = vec![0.0; dim];
            for v in &rows {
                let along = dot(v, &axis);
                next.iter_mut().zip(v).for_each(|(n, x)| *n += along * x);
            }
            remove(&mut next, first.as_deref());
            let norm = dot(&next, &next).sqrt();
            if norm < 1e-300 {
                break; // nothing lies outside the first axis: any direction will do
            }
            axis = next.into_iter().map(|x| x / norm).collect();
        }
        let norm = dot(&axis, &axis).sqrt().max(1e-300);
        axis.iter_mut().for_each(|x| *x /= norm);
        held += rows.iter().map(|v| dot(v, &axis).powi(2)).sum::<f64>();
        axes[index] = axis;
    }
    Plane { axes, share: if total > 0.0 { (held / total).min(1.0) } else { 1.0 } }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Takes the part along `axis` out of `v`.
fn remove(v: &mut [f64], axis: Option<&[f64]>) {
    if let Some(axis) = axis {
        let along = dot(v, axis);
        v.iter_mut().zip(axis).for_each(|(x, a)| *x -= along * a);
    }
}

/// Positions of all codes. In flat space there is no rim: there the farthest code is drawn at .95.
fn dots(codes: &Codes, plane: &Plane) -> Vec<Dot> {
    let rows: Vec<Vec<f64>> = codes.tangent.chunks_exact(codes.config.dim).map(|v| v.iter().map(|x| f64::from(*x)).collect()).collect();
    let norm = |v: &[f64]| dot(v, v).sqrt();
    let farthest = rows.iter().map(|v| norm(v)).fold(1e-300, f64::max);
    rows.iter()
        .map(|v| {
            let length = norm(v);
            let (radius, distance) = match codes.config.geometry {
                Geometry::Poincare { curvature } => ((f64::from(curvature).sqrt() * length).tanh(), 2.0 * length),
                Geometry::Euclidean => (0.95 * length / farthest, length),
            };
            let seen = [dot(v, &plane.axes[0]), dot(v, &plane.axes[1])];
            let scaled = |by: f64| seen.map(|x| if by > 0.0 { x * radius / by } else { 0.0 });
            Dot { exact: scaled(norm(&seen)), flat: scaled(length), distance, uses: 0, top: Vec::new() }
        })
        .collect()
}

/// Circles at whole or half distances from the origin, as far as codes lie and a bit beyond.
fn circles(codes: &Codes, dots: &[Dot]) -> Vec<(f64, f64)> {
    let Geometry::Poincare { curvature } = codes.config.geometry else { return Vec::new() };
    let farthest = dots.iter().map(|dot| dot.distance).fold(0.0, f64::max);
    let step = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0].into_iter().find(|step| farthest / step <= 4.0).unwrap_or(1000.0);
    let radius = |distance: f64| (f64::from(curvature).sqrt() * distance / 2.0).tanh();
    (1..=5).map(|i| f64::from(i) * step).map(|distance| (distance, radius(distance))).filter(|(_, radius)| *radius < 0.985).collect()
}

fn explanation(codes: &Codes, plane: &Plane, dots: &[Dot], counted: bool) -> String {
    let (n, dim, share) = (codes.config.codes, codes.config.dim, 100.0 * plane.share);
    let kept = match codes.config.geometry {
        Geometry::Poincare { curvature } => format!(
            "{n} codes of {dim} dimensions in the ball of curvature \u{2212}{curvature}, drawn on the disk. <b>Distance kept</b>: each code lies at its exact \
             hyperbolic distance from the origin, 2\u{2016}v\u{2016} (in the disk tanh(\u{221a}c\u{2016}v\u{2016})), in the direction in which the plane of the \
             two leading principal components of the tangent vectors sees it. Distances between codes are not kept: two dots that touch may be far apart, \
             since the plane holds {share:.1} % of \u{03a3}\u{2016}v\u{2016}\u{00b2}. <b>Projected</b>: the code's point dropped onto that plane, which keeps \
             no distance exactly; a dot near the middle is one that the plane sees little of."
        ),
        Geometry::Euclidean => format!(
            "{n} codes of {dim} dimensions, compared in flat space. <b>Distance kept</b>: each code lies at its distance from the origin, relative to the \
             farthest, in the direction in which the plane of the two leading principal components sees it; distances between codes are not kept, since the \
             plane holds {share:.1} % of \u{03a3}\u{2016}v\u{2016}\u{00b2}. <b>Projected</b>: the code dropped onto that plane."
        ),
    };
    let (least, most) = dots.iter().fold((f64::INFINITY, 0.0f64), |(least, most), dot| (least.min(dot.distance), most.max(dot.distance)));
    let range = match (number(least), number(most)) {
        (least, most) if least == most => format!(" Here every code lies at distance {least}."),
        (least, most) => format!(" Here the distances go from {least} to {most}."),
    };
    let colours = match counted {
        true => {
            " A dot's area grows with its uses, its colour is the class for which it is used most; codes without a use are small rings."
        }
        false => " Uses are not shown, as no clips were turned into tokens (--data and --split name them).",
    };
    format!(
        "<p class=note>{kept}{range}{colours}</p><fieldset class=switch><legend>Radius</legend><label><input type=radio name=disk value=exact checked> Distance kept</label>\
         <label><input type=radio name=disk value=flat> Projected</label></fieldset><p id=disk-text class=readout aria-live=polite>&nbsp;</p>\
         <div class=disk><div id=disk-chart></div><div id=disk-legend class=legend></div></div>"
    )
}

#[cfg(test)]
mod tests {
    use llmar::motion::{QuantizerConfig, poincare};

    use super::*;

    fn codes(geometry: Geometry, dim: usize, tangent: Vec<f32>) -> Codes {
        let config = QuantizerConfig { codes: tangent.len() / dim, dim, geometry, gain: 1.0, clip: 1.0 };
        Codes { config, tangent }
    }

    #[test]
    fn the_distance_from_the_origin_is_kept() {
        let mut random = crate::testing::Random::new(4);
        let tangent: Vec<f32> = (0..40 * 16).map(|_| 0.4 * random.uniform()).collect();
        for curvature in [1.0f32, 0.3, 2.5] {
            let codes = codes(Geometry::Poincare { curvature }, 16, tangent.clone());
            let plane = plane(&codes.tangent, 16);
            let c = f64::from(curvature);
            for (dot, v) in dots(&codes, &plane).iter().zip(codes.tangent.chunks_exact(16)) {
                let v: Vec<f64> = v.iter().map(|x| f64::from(*x)).collect();
                let mut point = vec![0.0; 16];
                poincare::exp0(&v, c, &mut point);
                let expected = poincare::distance(&[0.0; 16], &point, c);
                // The drawn disk has radius 1, the ball 1/√c.
                let drawn: Vec<f64> = dot.exact.iter().map(|x| x / c.sqrt()).collect();
                assert!((poincare::distance(&[0.0; 2], &drawn, c) - expected).abs() < 1e-9 && (dot.distance - expected).abs() < 1e-9);
                let flat = [0, 1].map(|i| super::dot(&point, &plane.axes[i]) * c.sqrt());
                assert!((dot.flat[0] - flat[0]).abs() < 1e-9 && (dot.flat[1] - flat[1]).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn the_plane_is_the_one_with_most_in_it() {
        // Most along (1, 1, 0)/√2, then along z, little along (1, −1, 0)/√2.
        let v: Vec<f32> = vec![3.0, 3.0, 0.0, 0.0, 0.0, 2.0, 0.3, -0.3, 0.0];
        let plane = plane(&v, 3);
        assert!((plane.axes[0][0].abs() - 0.5f64.sqrt()).abs() < 1e-6 && plane.axes[0][2].abs() < 1e-6, "{plane:?}");
        assert!((plane.axes[1][2].abs() - 1.0).abs() < 1e-6, "{plane:?}");
        assert!((plane.share - 22.0 / 22.18).abs() < 1e-6, "{}", plane.share);
        // One direction only, and nothing at all: still two orthonormal axes.
        for v in [vec![1.0f32, 0.0, 0.0, 2.0, 0.0, 0.0], vec![0.0; 6]] {
            let [a, b] = super::plane(&v, 3).axes;
            assert!((dot(&a, &a) - 1.0).abs() < 1e-9 && (dot(&b, &b) - 1.0).abs() < 1e-9 && dot(&a, &b).abs() < 1e-9);
        }
    }

    #[test]
    fn flat_space_and_circles() {
        let flat = codes(Geometry::Euclidean, 2, vec![3.0, 4.0, 0.0, 1.0]);
        let dots = dots(&flat, &plane(&flat.tangent, 2));
        assert!(
            (dots[0].exact[0].hypot(dots[0].exact[1]) - 0.95).abs() < 1e-9
                && (dots[1].exact[0].hypot(dots[1].exact[1]) - 0.19).abs() < 1e-9
        );
        assert!(circles(&flat, &dots).is_empty());
        let ball = codes(Geometry::Poincare { curvature: 1.0 }, 2, vec![1.0, 0.0, 0.0, 0.5]);
        let rings = circles(&ball, &super::dots(&ball, &plane(&ball.tangent, 2)));
        assert_eq!(rings[0].0, 0.5);
        assert!((rings[1].1 - 0.5f64.tanh()).abs() < 1e-12, "{rings:?}");
    }
}
