//! Which action was taken for which, and the share right of each.

use std::fmt::Write;

use super::html::{Part, count, text};
use super::material::Material;
use crate::error::Result;
use crate::evaluate::Answers;

const TITLE: &str = "Confusions";

/// Matrix of counts and bars of accuracy, both in the order of the model's labels.
pub fn section(material: &Material) -> Result<Part> {
    let (answers, _) = match material.answered() {
        Ok(answered) => answered,
        Err(reason) => return Part::missing(TITLE, reason),
    };
    let counts = counts(answers);
    let mut html = String::from(
        "<p class=note>Rows are what was shown, columns what the model answered, in the order of its labels; a number counts clips. Colour is the \
         share of the row. Point at a cell, or focus the matrix and press the arrow keys, to read it; Enter lists the clips of a mistake below.</p>",
    );
    if answers.report.unnameable > 0 {
        let clips = count(answers.report.unnameable, "clip");
        let _ = write!(html, "<p class=note>{clips} of classes that the model does not know count as wrong and are not in the matrix.</p>");
    }
    html += "<p id=matrix-text class=readout aria-live=polite>&nbsp;</p>";
    html += &matrix(&answers.labels, &counts);
    html += "<h3>Share right, by class</h3>";
    html += &bars(&answers.labels, &counts);
    Part::shown("confusions", TITLE, html, &())
}

/// Clips by right label and answered label, [labels][labels].
fn counts(answers: &Answers) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; answers.labels.len()]; answers.labels.len()];
    for sample in answers.samples() {
        if let (Some(truth), Some(&answer)) = (sample.truth, sample.ranking.first()) {
            counts[truth][answer] += 1;
        }
    }
    counts
}

fn matrix(labels: &[String], counts: &[Vec<usize>]) -> String {
    let mut html = String::from("<div class=scroll><table id=matrix role=grid><thead><tr><td></td>");
    for label in labels {
        let _ = write!(html, "<th scope=col><span>{}</span></th>", text(label));
    }
    html += "</tr></thead><tbody>";
    for (truth, row) in counts.iter().enumerate() {
        let total: usize = row.iter().sum();
        let _ = write!(html, "<tr data-total={total}><th scope=row>{}</th>", text(&labels[truth]));
        for (answer, &n) in row.iter().enumerate() {
            let kind = if answer == truth { "hit" } else { "miss" };
            let share = n as f64 / total.max(1) as f64;
            match n {
                0 => html += if answer == truth { "<td class=hit></td>" } else { "<td></td>" },
                n => {
                    let _ = write!(html, "<td class={kind} style=\"--s:{:.0}%\">{n}</td>", 15.0 + 85.0 * share);
                }
            }
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

fn bars(labels: &[String], counts: &[Vec<usize>]) -> String {
    let mut html = String::from("<ul class=bars>");
    for (index, (label, row)) in labels.iter().zip(counts).enumerate() {
        let (right, total) = (row[index], row.iter().sum::<usize>());
        let share = 100.0 * right as f64 / total.max(1) as f64;
        let figure = if total == 0 { "no clip".to_owned() } else { format!("{right} of {total}, {share:.1} %") };
        let _ = write!(
            html,
            "<li><span class=name>{}</span><span class=track><span style=\"width:{share:.2}%\"></span></span><span class=figure>{figure}</span></li>",
            text(label)
        );
    }
    html + "</ul>"
}
