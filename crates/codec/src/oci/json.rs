//! The shape of a JSON document, checked before anything is built from it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Error, Limits, shortened};

/// Checks that `bytes` are one JSON value within the bounds of `limits`, and that no object has a key twice. In the
/// outermost object keys may not even differ in case alone: parsers written in Go take both for the same.
pub(crate) fn check(bytes: &[u8], what: &'static str, limits: &Limits) -> Result<(), Error> {
    let invalid = |e: serde_json::Error| Error::Invalid { what, reason: e.to_string() };
    let mut found = Found { values: 0, fault: None };
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let result = Value { found: &mut found, depth: 0, limits }.deserialize(&mut input);
    if let Some(fault) = found.fault {
        return Err(fault);
    }
    match result {
        // serde_json has a bound of its own.
        Err(e) if e.to_string().starts_with("recursion limit") => Err(Error::TooDeep(limits.depth)),
        Err(e) => Err(invalid(e)),
        Ok(()) => input.end().map_err(invalid),
    }
}

struct Found {
    values: u32,
    fault: Option<Error>,
}

struct Value<'a> {
    found: &'a mut Found,
    depth: u32,
    limits: &'a Limits,
}

impl Value<'_> {
    fn stop<E: serde::de::Error>(&mut self, fault: Error) -> E {
        self.found.fault = Some(fault);
        E::custom("")
    }

    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.found.values += 1;
        if self.found.values > self.limits.values {
            return Err(self.stop(Error::TooManyValues(self.limits.values)));
        }
        Ok(())
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth >= self.limits.depth {
            return Err(self.stop(Error::TooDeep(self.limits.depth)));
        }
        Ok(())
    }

    fn inner(&mut self) -> Value<'_> {
        Value { found: self.found, depth: self.depth + 1, limits: self.limits }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, input: D) -> Result<(), D::Error> {
        self.count()?;
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.enter()?;
        while items.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.enter()?;
        let mut keys = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            self.count()?;
            let folded = if self.depth == 0 { key.to_lowercase() } else { key.clone() };
            if !keys.insert(folded) {
                return Err(self.stop(Error::DuplicateKey(shortened(&key))));
            }
            members.next_value_seed(self.inner())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Result<(), Error> {
        let limits = Limits { depth: 4, values: 12, ..Limits::default() };
        check(text.as_bytes(), "manifest", &limits)
    }

    #[test]
    fn bounds_hold_exactly() {
        assert_eq!(verdict("[[[[1]]]]"), Ok(()));
        assert_eq!(verdict("[[[[[1]]]]]"), Err(Error::TooDeep(4)));
        assert_eq!(verdict("[1,2,3,4,5,6,7,8,9,10,11]"), Ok(()));
        assert_eq!(verdict("[1,2,3,4,5,6,7,8,9,10,11,12]"), Err(Error::TooManyValues(12)));
        let deep = "[".repeat(100_000);
        assert_eq!(verdict(&deep), Err(Error::TooDeep(4)));
    }

    #[test]
    fn keys_stand_once() {
        assert_eq!(verdict(r#"{"a":1,"b":{"a":1,"A":2}}"#), Ok(()));
        assert_eq!(verdict(r#"{"a":1,"a":2}"#), Err(Error::DuplicateKey("a".into())));
        assert_eq!(verdict(r#"{"a":1,"A":2}"#), Err(Error::DuplicateKey("A".into())));
        assert_eq!(verdict(r#"{"b":{"a":1,"a":2}}"#), Err(Error::DuplicateKey("a".into())));
    }

    #[test]
    fn one_value_and_nothing_else() {
        for bad in ["", "{", "{} {}", "nul", "\u{feff}{}", "{\"a\":1e999}"] {
            assert!(matches!(verdict(bad), Err(Error::Invalid { .. })), "{bad}");
        }
        assert!(check(b"{\"a\":\"\xff\"}", "config", &Limits::default()).is_err());
    }
}
