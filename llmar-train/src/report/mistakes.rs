//! Every clip that was not recognised, with its skeleton to play.

use std::fmt::Write;

use llmar::skeleton::Layout;
use serde::Serialize;

use super::clips::{Motion, Skeleton};
use super::html::{Part, bytes, count, text};
use super::material::Material;
use crate::error::Result;
use crate::evaluate::{Answers, Side};

const TITLE: &str = "Mistakes";
/// Base64 of skeletons after which further clips are listed without theirs: a page must still open at once.
const ROOM: usize = 8_000_000;

#[derive(Serialize)]
struct Mistakes {
    skeleton: Skeleton,
    clips: Vec<Mistake>,
}

#[derive(Serialize)]
struct Mistake {
    clip: String,
    truth: String,
    answer: String,
    tokens: Vec<u16>,
    /// Null where the page has no room for it.
    motion: Option<Motion>,
}

/// The list of mistakes, the surest first, and the player.
pub fn section(material: &Material) -> Result<Part> {
    let (answers, side) = match material.answered() {
        Ok(answered) => answered,
        Err(reason) => return Part::missing(TITLE, reason),
    };
    let layout = Layout::find(&side.archive.layout)?;
    let samples = answers.samples();
    let mut wrong: Vec<usize> = (0..samples.len()).filter(|&clip| !samples[clip].right(1)).collect();
    let sureness = |clip: usize| answers.answers[clip].probabilities.first().copied().unwrap_or(0.0);
    wrong.sort_by(|&a, &b| sureness(b).total_cmp(&sureness(a)));
    if wrong.is_empty() {
        let html = format!("<p class=note>All {} were recognised.</p>", count(samples.len(), "clip"));
        return Part::shown("mistakes", TITLE, html, &Mistakes { skeleton: Skeleton::of(&layout), clips: Vec::new() });
    }
    let mut room = ROOM;
    let mut clips = Vec::with_capacity(wrong.len());
    for &clip in &wrong {
        let owned = &side.archive.clips[side.chosen[clip]];
        let motion = Motion::of_clip(owned, &layout);
        let fits = motion.joints.len() <= room;
        // Once one does not fit, none after it is tried: which clips have skeletons is then easy to say.
        room = if fits { room - motion.joints.len() } else { 0 };
        let answer = answers.answers[clip].ranking.first().map(|&label| answers.labels[label].clone());
        clips.push(Mistake {
            clip: owned.name.clone(),
            truth: side.class(clip).to_owned(),
            answer: answer.unwrap_or_default(),
            tokens: answers.answers[clip].tokens.clone(),
            motion: fits.then_some(motion),
        });
    }
    let playable = clips.iter().filter(|clip| clip.motion.is_some()).count();
    let mut html = format!(
        "<p class=note>{} of {}, those the model was surest of first. Choose one to play it as it was recorded; drag the figure to turn it. Left limbs are \
         blue, right limbs orange.",
        count(wrong.len(), "mistake"),
        count(samples.len(), "clip"),
    );
    if playable < clips.len() {
        let _ = write!(html, " <b>The first {playable} can be played: for the others there was no room within {}.</b>", bytes(ROOM as u64));
    }
    html += "</p><div class=mistakes><div><p id=mistakes-filter class=filter hidden></p>";
    html += &table(answers, side, &wrong, playable);
    html += "</div><div class=player id=player><p id=player-title class=readout aria-live=polite>&nbsp;</p><canvas id=player-canvas tabindex=0></canvas>\
             <div id=player-bar class=transport></div><p id=player-tokens class=tokens></p></div></div>";
    Part::shown("mistakes", TITLE, html, &Mistakes { skeleton: Skeleton::of(&layout), clips })
}

fn table(answers: &Answers, side: &Side, wrong: &[usize], playable: usize) -> String {
    let (subjects, cameras) = (!side.archive.subjects.is_empty(), !side.archive.cameras.is_empty());
    let mut html = String::from(
        "<div class=scroll><table class=list id=mistakes-list><thead><tr><th>Clip</th><th>Shown</th><th>Answered</th><th>p</th>",
    );
    html += "<th>Second answer</th><th>p</th><th title=\"probability of the right label\">p right</th>";
    html += if subjects { "<th>Subject</th>" } else { "" };
    html += if cameras { "<th>Camera</th>" } else { "" };
    html += "</tr></thead><tbody>";
    for (row, &clip) in wrong.iter().enumerate() {
        let (answer, at) = (&answers.answers[clip], side.chosen[clip]);
        let place = |place: usize| match (answer.ranking.get(place), answer.probabilities.get(place)) {
            (Some(&label), Some(&p)) => (text(&answers.labels[label]), percent(p)),
            _ => (String::new(), String::new()),
        };
        let right = match answers.truths[clip] {
            None => "not a label".to_owned(),
            Some(truth) => {
                let place = answer.ranking.iter().position(|&label| label == truth);
                percent(place.map_or(0.0, |place| answer.probabilities[place]))
            }
        };
        let ((first, p), (second, q)) = (place(0), place(1));
        let unknown = if answer.unknown { " <span class=tag>unknown</span>" } else { "" };
        let disabled = if row < playable { "" } else { " disabled" };
        let name = text(&side.archive.clips[at].name);
        let _ = write!(
            html,
            "<tr data-clip={row}><td><button type=button{disabled}>{name}</button></td><td>{}</td><td>{first}{unknown}</td><td class=n>{p}</td><td>{second}</td>\
             <td class=n>{q}</td><td class=n>{right}</td>",
            text(side.class(clip))
        );
        for (there, numbers) in [(subjects, &side.archive.subjects), (cameras, &side.archive.cameras)] {
            if there {
                let _ = write!(html, "<td class=n>{}</td>", numbers[at]);
            }
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

fn percent(p: f32) -> String {
    format!("{:.1} %", 100.0 * p)
}
