//! How parts of images are shown.

use coracle_engine::subset::Subset;
use serde_json::{Value, json};

use super::clean;

/// `null` for what is a whole.
pub fn subset_json(subset: Option<&Subset>) -> Value {
    json!(subset.map(|subset| json!({
        "of": subset.of.to_string(),
        "only": subset.patterns.only,
        "exclude": subset.patterns.exclude,
    })))
}

/// A line that warns; nothing for what is a whole.
pub fn subset_text(what: &str, subset: Option<&Subset>) -> String {
    subset.map(|subset| clean(&format!("note: {what} is {}", subset.in_words())) + "\n").unwrap_or_default()
}
