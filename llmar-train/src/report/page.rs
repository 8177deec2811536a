//! The page around the sections.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::html::{Part, script_json, text};
use super::material::Material;
use super::summary;
use crate::error::Result;

const CSS: &str = include_str!("page.css");
/// One script of three files: `page.js` starts what the others define.
const JS: [&str; 3] = [include_str!("charts.js"), include_str!("skeletons.js"), include_str!("page.js")];
/// The browser itself keeps the page from loading anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// The whole document.
pub fn page(material: &Material, parts: &[Part]) -> Result<String> {
    let title = text(&material.title);
    let (mut nav, mut body, mut left_out) = (String::from("<a href=#summary>Summary</a>"), String::new(), String::new());
    let mut data = Map::new();
    for part in parts {
        match part {
            Part::Shown { id, title, html, data: own } => {
                let _ = write!(nav, "<a href=#{id}>{title}</a>");
                let _ = write!(body, "<section id={id}><h2>{title}</h2>{html}</section>");
                data.insert((*id).to_owned(), own.clone());
            }
            Part::Missing { title, reason } => {
                let _ = write!(left_out, "<li><b>{title}</b>: {}</li>", text(reason));
            }
        }
    }
    if !left_out.is_empty() {
        left_out = format!("<div class=left-out id=left-out><p>Not on this page:</p><ul>{left_out}</ul></div>");
    }
    Ok(format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title><meta http-equiv=Content-Security-Policy content=\"{POLICY}\">\
         <meta name=viewport content=\"width=device-width,initial-scale=1\"><meta name=color-scheme content=\"light dark\"><link rel=icon href=\"data:,\">\
         <style>{CSS}</style></head><body><header><h1>{title}</h1><nav aria-label=Sections>{nav}</nav></header><main><section id=summary>{}{left_out}</section>\
         {body}</main><footer>Made by llmar-train {}.</footer><script type=application/json id=data>{}</script><script>'use strict';\n{}</script></body></html>\n",
        summary::html(material),
        env!("CARGO_PKG_VERSION"),
        script_json(&Value::Object(data)),
        JS.concat(),
    ))
}
