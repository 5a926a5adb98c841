//! `coracle ls`, `coracle cat` and `coracle compare`.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use coracle_codec::chunked::rfc3339;
use coracle_codec::digest::Digest;
use coracle_codec::tar::Time;
use coracle_engine::audit::{Change, Compared, How, Listed, Member, PackageChange, Request, compare, list};
use coracle_engine::subset::Subset;
use serde_json::{Value, json};

use super::images::{environment, image_name};
use super::subset::{subset_json, subset_text};
use super::{Cost, clean, print, say, show, watched};
use crate::args::audit::{Auditing, Cat, Compare, Ls};
use crate::failure::Failure;
use crate::size::{grouped, human};

fn request(image: &str, auditing: &Auditing) -> Result<Request, Failure> {
    let platform = auditing.platform.clone();
    Ok(Request { image: image_name(image)?, platform, jobs: auditing.jobs.get() })
}

/// Lists files.
pub fn ls(args: &Ls) -> Result<(), Failure> {
    let start = Instant::now();
    let request = request(&args.image, &args.auditing)?;
    let shared = &args.auditing.shared;
    let (environment, _runtime) = environment(&args.auditing.registry, None, shared)?;
    let path = args.path.as_ref().map(|path| path.as_os_str().as_bytes());
    let listed = watched(shared, true, |context| list(&request, path, args.digests, &environment, context))?;
    if shared.json {
        return print(&listed_json(&args.image, &listed, &Cost::since(start)));
    }
    let lines: Vec<String> = listed.members.iter().map(|member| line(member, args)).collect();
    print(&lines.join("\n"))?;
    if !shared.quiet {
        warn(&args.image, listed.subset.as_ref());
        say(&how_text(&listed.how), true);
    }
    Ok(())
}

/// Writes one file.
pub fn cat(args: &Cat) -> Result<(), Failure> {
    let request = request(&args.image, &args.auditing)?;
    let shared = &args.auditing.shared;
    let (environment, _runtime) = environment(&args.auditing.registry, None, shared)?;
    let path = args.path.as_os_str().as_bytes();
    let mut out = io::stdout().lock();
    let how = watched(shared, true, |context| {
        coracle_engine::audit::cat(&request, path, &mut out, &environment, context)
    })?;
    let flushed = out.flush();
    drop(out);
    match flushed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let error = coracle_engine::Error::Write { path: "standard output".into(), error };
            return Err(Failure::from(error).keep_stdout(true));
        }
        _ => {}
    }
    if shared.json {
        say(
            &json!({ "kind": "cat", "image": args.image, "path": show(path), "how": how_json(&how) })
                .to_string(),
            true,
        );
    } else if !shared.quiet {
        say(&how_text(&how), true);
    }
    Ok(())
}

/// Compares two images.
pub fn compare_images(args: &Compare) -> Result<(), Failure> {
    let start = Instant::now();
    let (old, new) = (request(&args.old, &args.auditing)?, request(&args.new, &args.auditing)?);
    let shared = &args.auditing.shared;
    let (environment, _runtime) = environment(&args.auditing.registry, None, shared)?;
    let compared = watched(shared, true, |context| compare(&old, &new, &environment, context))?;
    if shared.json {
        return print(&compared_json(args, &compared, &Cost::since(start)));
    }
    print(&compared_text(&compared))?;
    if !shared.quiet {
        warn(&args.old, compared.subsets.0.as_ref());
        warn(&args.new, compared.subsets.1.as_ref());
        for note in &compared.notes {
            say(&clean(&format!("note: {note}")), true);
        }
        say(&how_text(&compared.how), true);
    }
    Ok(())
}

fn warn(image: &str, subset: Option<&Subset>) {
    let text = subset_text(image, subset);
    if !text.is_empty() {
        say(text.trim_end(), true);
    }
}

fn how_json(how: &How) -> Value {
    json!({
        "layers_from_store": how.stored,
        "layers_by_ranges": how.ranged,
        "layers_whole": how.whole,
        "requests": how.requests,
        "received_bytes": how.received,
    })
}

fn how_text(how: &How) -> String {
    let whole = if how.whole > 0 { " (they are not chunked)" } else { "" };
    format!(
        "layers: {}{} read by ranges, {} fetched whole{whole}; {} requests, {} received",
        if how.stored > 0 { format!("{} in the store, ", how.stored) } else { String::new() },
        how.ranged,
        how.whole,
        how.requests,
        human(how.received)
    )
}

fn member_json(member: &Member) -> Value {
    json!({
        "path": show(&member.path),
        "type": member.kind.name(),
        "mode": format!("{:04o}", member.mode & 0o7777),
        "uid": member.uid,
        "gid": member.gid,
        "size": member.size,
        "mtime": member.mtime,
        "link": (!member.link.is_empty()).then(|| show(&member.link)),
        "digest": member.digest.map(|digest| digest.to_string()),
        "layer": member.layer,
    })
}

fn listed_json(image: &str, listed: &Listed, cost: &Cost) -> String {
    let files: Vec<Value> = listed.members.iter().map(member_json).collect();
    let subset = subset_json(listed.subset.as_ref());
    let how = how_json(&listed.how);
    let mut out = json!({ "kind": "ls", "image": image, "subset": subset, "files": files, "how": how });
    cost.add_to(&mut out);
    out.to_string()
}

/// `rwxr-xr-x`, with `s` and `t` where they belong.
fn mode(mode: i64) -> String {
    let bit = |bit: i64, letter: char| if mode & bit != 0 { letter } else { '-' };
    let special = |bit: i64, runs: i64, letter: char| match (mode & bit != 0, mode & runs != 0) {
        (true, true) => letter,
        (true, false) => letter.to_ascii_uppercase(),
        (false, true) => 'x',
        (false, false) => '-',
    };
    [
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        special(0o4000, 0o100, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        special(0o2000, 0o010, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        special(0o1000, 0o001, 't'),
    ]
    .iter()
    .collect()
}

fn line(member: &Member, args: &Ls) -> String {
    let mut out = String::new();
    if args.long {
        let time = rfc3339(&Time { seconds: member.mtime, nanos: 0 }).unwrap_or_else(|| "?".into());
        out += &format!(
            "{}{} {:>6} {:>6} {:>12} {} ",
            member.kind.letter(),
            mode(member.mode),
            member.uid,
            member.gid,
            member.size,
            time
        );
    }
    if args.digests {
        let digest = member.digest.map(|digest| digest.to_string());
        out += &format!("{:71} ", digest.unwrap_or_else(|| "-".into()));
    }
    out += &clean(&show(&member.path));
    if args.long && !member.link.is_empty() {
        out += &format!(" -> {}", clean(&show(&member.link)));
    }
    out
}

fn package_json(package: &PackageChange) -> Value {
    json!({ "manager": package.manager, "name": package.name, "old": package.old, "new": package.new })
}

fn compared_json(args: &Compare, compared: &Compared, cost: &Cost) -> String {
    let (mut added, mut removed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for change in &compared.changes {
        match change {
            Change::Added(member) => added.push(member_json(member)),
            Change::Removed(member) => removed.push(member_json(member)),
            Change::Changed { old, new, content } => {
                changed.push(json!({ "old": member_json(old), "new": member_json(new), "content": content }));
            }
        }
    }
    let side = |image: &str, digest: Digest, packages: u64, subset: &Option<Subset>| {
        let subset = subset_json(subset.as_ref());
        json!({ "image": image, "digest": digest.to_string(), "packages": packages, "subset": subset })
    };
    let mut out = json!({
        "kind": "compare",
        "old": side(&args.old, compared.old, compared.package_counts.0, &compared.subsets.0),
        "new": side(&args.new, compared.new, compared.package_counts.1, &compared.subsets.1),
        "same": compared.same,
        "added": added,
        "removed": removed,
        "changed": changed,
        "packages": compared.packages.iter().map(package_json).collect::<Vec<_>>(),
        "notes": compared.notes,
        "how": how_json(&compared.how),
    });
    cost.add_to(&mut out);
    out.to_string()
}

fn compared_text(compared: &Compared) -> String {
    let mut out = String::new();
    for package in &compared.packages {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".into());
        let line = format!(
            "package {} {}: {} -> {}",
            package.manager,
            package.name,
            version(&package.old),
            version(&package.new)
        );
        out += &(clean(&line) + "\n");
    }
    let (mut added, mut removed, mut changed) = (0, 0, 0);
    for change in &compared.changes {
        let (sign, path) = match change {
            Change::Added(member) => {
                added += 1;
                ("+", &member.path)
            }
            Change::Removed(member) => {
                removed += 1;
                ("-", &member.path)
            }
            Change::Changed { new, content, .. } => {
                changed += 1;
                (if *content { "M" } else { "m" }, &new.path)
            }
        };
        out += &format!("{sign} {}\n", clean(&show(path)));
    }
    out += &format!(
        "{} files added, {} removed, {} changed, {} the same; {} packages of {} changed",
        grouped(added),
        grouped(removed),
        grouped(changed),
        grouped(compared.same),
        grouped(compared.packages.len() as u64),
        grouped(compared.package_counts.0.max(compared.package_counts.1)),
    );
    out
}
