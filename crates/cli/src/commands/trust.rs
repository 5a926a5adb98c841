//! What the commands say about trust, and `coracle inspect --verify`.

use std::io;
use std::path::PathBuf;

use coracle_codec::trust::Accepted;
use coracle_engine::trust::verify::{Checked, Found, Request, State, run as look};
use coracle_engine::trust::{Rule, Trust, Verdict};
use serde_json::{Value, json};

use super::delta::artifact_name;
use super::images::{environment, variable};
use super::{clean, print, watched};
use crate::args::{Inspect, TrustOptions};
use crate::failure::Failure;

/// The policy of the machine.
const POLICY: &str = "/etc/containers/policy.json";

/// What the machine accepts: the policy that was named, else the user's, else the machine's.
pub fn load(options: &TrustOptions) -> Result<Trust, Failure> {
    let trust = if options.insecure_policy {
        Trust::insecure()
    } else if let Some(named) = &options.signature_policy {
        Trust::load(named)?
    } else {
        match places().into_iter().find(may_be_there) {
            Some(path) => Trust::load(&path)?,
            None => Trust::absent(),
        }
    };
    Ok(trust.with_unnamed(options.accept_unnamed_signatures))
}

/// Where a policy may be. Other programs look below the home folder alone, so that is never passed over.
fn places() -> Vec<PathBuf> {
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = variable("HOME").map(|home| PathBuf::from(home).join(".config"));
    let users = config.into_iter().chain(home).map(|folder| folder.join("containers/policy.json"));
    users.chain([PathBuf::from(POLICY)]).collect()
}

/// A policy that cannot be looked at is one all the same.
fn may_be_there(path: &PathBuf) -> bool {
    let none = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    std::fs::symlink_metadata(path).map_or_else(|error| !none.contains(&error.kind()), |_| true)
}

/// Why an image is accepted, as JSON.
pub fn verdict_json(verdict: &Verdict) -> Value {
    let rule = |rule: &Rule| json!({ "file": rule.policy.display().to_string(), "transport": rule.transport, "scope": rule.scope });
    match verdict {
        Verdict::NoPolicy => json!({ "verdict": "no-policy" }),
        Verdict::Insecure => json!({ "verdict": "insecure" }),
        Verdict::InStore => json!({ "verdict": "in-store" }),
        Verdict::Anything(by) => json!({ "verdict": "anything", "policy": rule(by) }),
        Verdict::Signed(by, signatures) => {
            let signatures: Vec<Value> = signatures.iter().map(accepted_json).collect();
            json!({ "verdict": "signed", "policy": rule(by), "signatures": signatures })
        }
    }
}

fn accepted_json(accepted: &Accepted) -> Value {
    json!({ "place": accepted.place, "form": accepted.form, "key": accepted.key, "name": accepted.name })
}

/// The same in words, one line.
pub fn verdict_text(verdict: &Verdict) -> String {
    let text = match verdict {
        Verdict::NoPolicy => "there is no policy.json: accepted unchecked".to_owned(),
        Verdict::Insecure => "the policy was not asked: accepted unchecked".to_owned(),
        Verdict::InStore => "from the store: judged when it came there".to_owned(),
        Verdict::Anything(rule) => format!("accepted unchecked, as the policy wants it ({rule})"),
        Verdict::Signed(rule, signatures) => {
            let mut keys: Vec<&str> = signatures.iter().map(|signature| signature.key.as_str()).collect();
            keys.sort_unstable();
            keys.dedup();
            format!("signed by {} ({rule})", keys.join(" and "))
        }
    };
    format!("trust: {text}\n")
}

/// Shows the signatures of an image or a delta.
pub fn verify(args: &Inspect) -> Result<(), Failure> {
    let request = Request {
        image: artifact_name(&args.path.to_string_lossy())?,
        platform: args.platform.clone(),
        keys: args.key.clone(),
    };
    let (environment, _runtime) = environment(&args.registry, Some(&args.trust), &args.shared)?;
    let checked = watched(&args.shared, false, |context| look(&request, &environment, context))?;
    let rejected = matches!(checked.verdict, Some(Err(_)));
    let unsigned = !request.keys.is_empty() && checked.holds != Some(true);
    let name = request.image.to_string();
    print(&if args.shared.json { as_json(&name, &checked) } else { as_text(&name, &checked) })?;
    match rejected || unsigned {
        true => Err(Failure::rejected(
            &name,
            if rejected { "the policy rejects it" } else { "no signature holds" },
        )),
        false => Ok(()),
    }
}

fn as_json(name: &str, checked: &Checked) -> String {
    let documents: Vec<Value> = checked
        .documents
        .iter()
        .map(|document| {
            json!({
                "kind": document.kind.name(),
                "digest": document.digest.to_string(),
                "signatures": document.found.iter().map(found_json).collect::<Vec<_>>(),
                "notes": document.notes,
            })
        })
        .collect();
    let trust = checked.verdict.as_ref().map(|verdict| match verdict {
        Ok(verdict) => verdict_json(verdict),
        Err(reason) => json!({ "verdict": "rejected", "reason": reason }),
    });
    json!({
        "kind": "verify",
        "name": name,
        "holds": checked.holds,
        "documents": documents,
        "trust": trust,
    })
    .to_string()
}

fn found_json(found: &Found) -> Value {
    let (holds, key, name, reason) = match &found.state {
        State::Good { key, name } => (Some(true), Some(key), name.as_ref(), None),
        State::Bad(reason) => (Some(false), None, None, Some(reason)),
        State::Unchecked => (None, None, None, None),
    };
    json!({
        "place": found.place, "form": found.form, "holds": holds, "key": key, "name": name, "reason": reason,
    })
}

fn as_text(name: &str, checked: &Checked) -> String {
    let mut out = format!("{}\n", clean(name));
    for document in &checked.documents {
        let count = document.found.len();
        let what = if count == 1 { "signature" } else { "signatures" };
        out += &format!("{} {}: {count} {what}\n", document.kind.name(), document.digest);
        for found in &document.found {
            let state = match &found.state {
                State::Good { key, name: Some(name) } => format!("holds: key {key}, names {name}"),
                State::Good { key, name: None } => format!("holds: key {key}, names no image"),
                State::Bad(reason) => format!("does not hold: {reason}"),
                State::Unchecked => "not checked: there is no key for it".to_owned(),
            };
            out += &clean(&format!("  {}, {}: {state}", found.form, found.place));
            out += "\n";
        }
        for note in &document.notes {
            out += &clean(&format!("  note: {note}"));
            out += "\n";
        }
    }
    match &checked.verdict {
        Some(Ok(verdict)) => out += &verdict_text(verdict),
        Some(Err(reason)) => out += &format!("trust: {}\n", clean(reason)),
        None => {}
    }
    out
}
