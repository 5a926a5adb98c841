//! JSON objects of which every member has to be known.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::shortened;
use crate::oci;

/// Bounds for the JSON of this module. No document of it needs more.
const SHAPE: oci::Limits = oci::Limits {
    manifest_bytes: 1 << 20,
    config_bytes: 1 << 20,
    depth: 16,
    values: 50_000,
    entries: 10_000,
    blob_bytes: 1 << 40,
    nesting: 3,
};

/// Reads one JSON value in which no key stands twice.
pub(super) fn parse(bytes: &[u8], what: &'static str) -> Result<Value, String> {
    oci::check_json(bytes, what, &SHAPE).map_err(|e| e.to_string())?;
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

/// An object whose members are taken one by one.
pub(super) struct Members {
    /// Where it stands, for messages.
    place: String,
    map: Map<String, Value>,
}

impl Members {
    pub(super) fn new(value: Value, place: impl Into<String>) -> Result<Self, String> {
        let place = place.into();
        match value {
            Value::Object(map) => Ok(Members { place, map }),
            _ => Err(format!("{place} is no object")),
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key)
    }

    pub(super) fn required(&mut self, key: &str) -> Result<Value, String> {
        self.take(key).ok_or_else(|| format!("{}: {key} is missing", self.place))
    }

    /// The text of a member; `None` if it is not there.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{}: {key} is no text", self.place)),
        }
    }

    pub(super) fn required_text(&mut self, key: &str) -> Result<String, String> {
        self.text(key)?.ok_or_else(|| format!("{}: {key} is missing", self.place))
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, String> {
        let bad = || format!("{}: {key} is no list of texts", self.place);
        match self.map.remove(key) {
            None => Ok(None),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(bad()),
                })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(bad()),
        }
    }

    /// All members that were not taken.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map
    }

    /// Refuses members that nobody asked for.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("{}: {:?} is not known", self.place, shortened(key))),
        }
    }
}

/// Base64 as JSON of protobuf may have it: of either alphabet, padded or not.
pub(super) fn any_base64(text: &str) -> Option<Vec<u8>> {
    [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
        .into_iter()
        .find_map(|engine| engine.decode(text).ok())
}

/// Base64 with padding.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
