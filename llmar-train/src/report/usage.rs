//! How often each token is used, beside Zipf's law.

use serde::Serialize;

use super::html::{Part, count, facts, number};
use super::material::{Material, STAGE1};
use crate::error::Result;
use crate::health::{self, Health};

const TITLE: &str = "Token usage";

#[derive(Serialize)]
struct Ranks {
    /// (code, uses) of the codes that are used, most used first.
    used: Vec<(usize, usize)>,
    /// Zipf's law over all codes, as a share, by rank.
    zipf: Vec<f64>,
    tokens: usize,
}

/// Uses by rank on two logarithmic axes.
pub fn section(material: &Material) -> Result<Part> {
    let (Some(codebook), Some(sentences)) = (&material.codebook, &material.sentences) else {
        let reason = match &material.side {
            None => "no clips were turned into tokens (--data and --split name them)".to_owned(),
            Some(_) => format!("{STAGE1} and model.llmar are missing"),
        };
        return Part::missing(TITLE, reason);
    };
    let tokens = sentences.concat();
    let codes = codebook.config.codes;
    let health = Health::of(&tokens, codes);
    let mut used: Vec<(usize, usize)> = health::counts(&tokens, codes).into_iter().enumerate().filter(|(_, uses)| *uses > 0).collect();
    used.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let pairs = [
        ("Tokens", format!("{} in {}", health.tokens, count(sentences.len(), "sentence"))),
        ("Codes used", format!("{} of {codes}", health.used)),
        ("Perplexity", number(health.perplexity)),
        ("JS divergence from Zipf", format!("{:.4} nats (0 is Zipf's law, ln 2 = 0.693 the most)", health.zipf_js)),
    ];
    let html = format!(
        "<p class=note>Codes sorted by use, on logarithmic axes, beside Zipf's law p(i) \u{221d} 1/(i + 2.7) over all {codes} codes. The perplexity is the \
         number of codes that would carry as much if used evenly.</p>{}<div class=chart id=usage-chart></div>",
        facts(&pairs.map(|(name, value)| (name.to_owned(), value)))
    );
    Part::shown("usage", TITLE, html, &Ranks { used, zipf: health::target(codes), tokens: health.tokens })
}
