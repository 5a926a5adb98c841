//! `coracle delta`: its subcommands, and how they show what they did.

mod shown;

pub(super) use shown::payload as payload_name;

use std::path::Path;
use std::time::{Instant, SystemTime};

use coracle_codec::artifact::Dialect;
use coracle_codec::delta::Effort;
use coracle_codec::oci::{LayerCompression, is_tag};
use coracle_codec::tardiff::Version;
use coracle_engine::artifact::{apply, create, list, prune, push, tags};
use coracle_engine::image::{ImageName, Transport};

use super::diff::all_cores;
use super::images::{environment, image_name, writes_stdout};
use super::{Cost, delta_limits, native_limits, say, watched};
use crate::args::{
    Codec, DeltaApply, DeltaCommand, DeltaCreate, DeltaList, DeltaPrune, DeltaPush, Format, LayerFormat,
    Shared, TarDiffDialect,
};
use crate::failure::Failure;

/// Runs a subcommand.
pub fn run(command: &DeltaCommand) -> Result<(), Failure> {
    match command {
        DeltaCommand::Create(args) => create_deltas(args),
        DeltaCommand::Push(args) => push_deltas(args),
        DeltaCommand::List(args) => list_deltas(args),
        DeltaCommand::Prune(args) => prune_deltas(args),
        DeltaCommand::Apply(args) => apply_delta(args),
    }
}

/// Prints a result in the form that is wanted.
fn tell(shared: &Shared, stdout_taken: bool, json: impl FnOnce() -> String, text: impl FnOnce() -> String) {
    if shared.json {
        say(&json(), stdout_taken);
    } else if !shared.quiet {
        say(&text(), stdout_taken);
    }
}

/// An archive by its path, or any image by its name.
pub(super) fn artifact_name(text: &str) -> Result<ImageName, Failure> {
    if ImageName::has_transport(text) {
        return image_name(text);
    }
    let path = Path::new(text);
    // No image in a registry has such a name: it is a path, there or not.
    let is_path = text == "-" || text.starts_with(['/', '.']);
    if path.is_file() || (is_path && !path.is_dir()) {
        return image_name(&format!("oci-archive:{text}"));
    }
    if path.is_dir() {
        return image_name(&format!("oci:{text}"));
    }
    image_name(text)
}

/// Where to write: a path is an archive.
fn output_name(text: &str) -> Result<ImageName, Failure> {
    if ImageName::has_transport(text) { image_name(text) } else { image_name(&format!("oci-archive:{text}")) }
}

fn create_deltas(args: &DeltaCreate) -> Result<(), Failure> {
    let start = Instant::now();
    let (environment, _runtime) = environment(&args.registry, Some(&args.trust), &args.shared)?;
    let mut names = args.images.iter().map(|text| artifact_name(text)).collect::<Result<Vec<_>, _>>()?;
    let Some(new) = names.pop() else { return Err(Failure::usage("name an image")) };
    let choice = match (&args.from_last, &args.from_tags) {
        (Some(count), _) => Some(tags::Choice::Last(count.get())),
        (None, Some(pattern)) => Some(tags::Choice::Matching(pattern.clone())),
        (None, None) => None,
    };
    if choice.is_some() != names.is_empty() {
        return Err(Failure::usage(if choice.is_some() {
            "with --from-last or --from-tags name the new image alone"
        } else {
            "name an old image and the new one, or say where to start with --from-last or --from-tags"
        }));
    }
    if let Some(choice) = choice {
        names = watched(&args.shared, false, |context| {
            tags::sources(&new, &choice, args.platform.as_ref(), &environment, context)
        })?;
    }
    let codecs = match (args.codec.as_slice(), args.push) {
        ([], true) => &[Codec::Native, Codec::Tardiff][..],
        ([], false) => &[Codec::Tardiff],
        (named, _) => named,
    };
    let balena = args.dialect.contains(&TarDiffDialect::Balena);
    check_balena(args, balena)?;
    let codecs = if balena { &[Codec::Tardiff] } else { codecs };
    let mut dialects = Vec::new();
    for codec in codecs {
        match codec {
            Codec::Native => dialects.push(Dialect::Coracle),
            Codec::Tardiff => dialects.extend(args.dialect.iter().map(|dialect| match dialect {
                TarDiffDialect::OciDelta => Dialect::OciDelta,
                TarDiffDialect::Flatpak => Dialect::Flatpak,
                TarDiffDialect::Skopeo => Dialect::Skopeo,
                TarDiffDialect::Balena => Dialect::Balena,
            })),
        }
    }
    // Readers of archives without a choice take the first: the one that others read, too.
    dialects.sort();
    dialects.dedup();
    let to = match (&args.output, args.push) {
        (Some(output), _) => create::To::Image(output_name(output)?),
        (None, true) => create::To::Registry(args.tag.as_ref().map(|tag| tag_beside(tag, &new)).transpose()?),
        (None, false) => create::To::Nowhere,
    };
    let effort = if args.dry_run { 1 } else { args.effort };
    let request = create::Request {
        old: names,
        new,
        platform: args.platform.clone(),
        dialects,
        to,
        effort: Effort::new(effort).ok_or_else(|| Failure::usage("the effort is 1 to 9"))?,
        version: if args.format == Format::V1 { Version::V1 } else { Version::V2 },
        memory: args.memory,
        threads: args.threads.unwrap_or_else(all_cores),
        any_mode: args.any_mode,
        again: args.again,
        with_image: args.with_image,
        classic: args.balena.classic,
    };
    let stdout_taken = matches!(&request.to, create::To::Image(name) if writes_stdout(name));
    let made = watched(&args.shared, stdout_taken, |context| create::run(&request, &environment, context))?;
    let cost = Cost::since(start);
    let dry = args.dry_run;
    let json = || shown::created_json(&request, &made, dry, &cost);
    tell(&args.shared, stdout_taken, json, || shown::created_text(&request, &made, dry, &cost));
    Ok(())
}

/// A Balena delta is an image of its own: made alone, with a format of its own, found by its tag.
fn check_balena(args: &DeltaCreate, balena: bool) -> Result<(), Failure> {
    if !balena {
        return match args.balena.classic {
            true => Err(Failure::usage("--classic goes with --dialect balena")),
            false => Ok(()),
        };
    }
    if args.dialect.len() > 1 {
        return Err(Failure::usage("a Balena delta is made alone: give --dialect balena and no other"));
    }
    if !args.codec.is_empty() {
        return Err(Failure::usage("Balena deltas have a format of their own: leave --codec away"));
    }
    if args.push && args.tag.is_none() {
        return Err(Failure::usage("devices find a Balena delta by its tag: give it one with --tag"));
    }
    Ok(())
}

/// A tag, or a name with a tag in the repository of `new`.
fn tag_beside(text: &str, new: &ImageName) -> Result<String, Failure> {
    if is_tag(text) {
        return Ok(text.to_owned());
    }
    let wanted = image_name(text)?;
    match (wanted.transport(), new.transport()) {
        (Transport::Registry(wanted), Transport::Registry(new))
            if wanted.repository() == new.repository() =>
        {
            wanted.tag().map(str::to_owned).ok_or_else(|| Failure::usage(format!("{text} has no tag")))
        }
        _ => Err(Failure::usage(format!(
            "{text} is not in the repository of the new image, beside which deltas lie"
        ))),
    }
}

fn push_deltas(args: &DeltaPush) -> Result<(), Failure> {
    let start = Instant::now();
    let (environment, _runtime) = environment(&args.registry, None, &args.shared)?;
    let to = image_name(&args.to)?;
    let last = args.to.rsplit('/').next().unwrap_or_default();
    let request = push::Request {
        delta: artifact_name(&args.delta)?,
        to,
        tagged: last.contains(':') && !last.contains('@'),
        jobs: args.jobs,
    };
    let pushed = watched(&args.shared, false, |context| push::run(&request, &environment, context))?;
    let cost = Cost::since(start);
    tell(
        &args.shared,
        false,
        || shown::pushed_json(&request, &pushed, &cost),
        || shown::pushed_text(&request, &pushed),
    );
    Ok(())
}

fn list_deltas(args: &DeltaList) -> Result<(), Failure> {
    let (environment, _runtime) = environment(&args.registry, None, &args.shared)?;
    let name = artifact_name(&args.image)?;
    let platform = args.platform.as_ref();
    let listed = watched(&args.shared, false, |context| {
        list::run(&name, platform, args.repair, &environment, context)
    })?;
    super::print(&if args.shared.json {
        shown::listed_json(&name, &listed)
    } else {
        shown::listed_text(&name, &listed)
    })
}

fn prune_deltas(args: &DeltaPrune) -> Result<(), Failure> {
    let (environment, _runtime) = environment(&args.registry, None, &args.shared)?;
    let request = prune::Request {
        image: image_name(&args.image)?,
        platform: args.platform.clone(),
        keep_sources: args.keep_sources,
        older_than: args.older_than,
        now: SystemTime::now(),
        dry_run: args.dry_run,
    };
    let pruned = watched(&args.shared, false, |context| prune::run(&request, &environment, context))?;
    tell(
        &args.shared,
        false,
        || shown::pruned_json(&request, &pruned),
        || shown::pruned_text(&request, &pruned),
    );
    Ok(())
}

fn apply_delta(args: &DeltaApply) -> Result<(), Failure> {
    let start = Instant::now();
    let (environment, _runtime) = environment(&args.registry, Some(&args.trust), &args.shared)?;
    let base = match (&args.source, &args.ostree_repo) {
        (Some(source), _) => {
            let tree = source.strip_prefix("rootfs:").map(Path::new);
            let tree = tree.or_else(|| {
                let path = Path::new(source);
                (!ImageName::has_transport(source) && path.is_dir()).then_some(path)
            });
            match tree {
                Some(path) => apply::Base::Tree(path.to_owned()),
                None => apply::Base::Image(artifact_name(source)?),
            }
        }
        (None, Some(repo)) => apply::Base::Ostree(repo.clone(), args.ostree_ref.clone()),
        (None, None) => return Err(Failure::usage("say what is there: --source or --ostree-repo")),
    };
    let request = apply::Request {
        delta: artifact_name(&args.delta)?,
        base,
        destination: artifact_name(&args.to)?,
        compression: args.layer_compression.map(|format| match format {
            LayerFormat::Gzip => LayerCompression::Gzip,
            LayerFormat::Zstd => LayerCompression::Zstd,
            LayerFormat::None => LayerCompression::None,
        }),
        platform: args.platform.clone(),
        partial: args.partial,
        jobs: args.threads.unwrap_or_else(all_cores),
        limits: delta_limits(&args.shared, args.memory),
        native_limits: native_limits(&args.shared, args.memory),
    };
    let stdout_taken = writes_stdout(&request.destination);
    let applied = watched(&args.shared, stdout_taken, |context| apply::run(&request, &environment, context))?;
    let cost = Cost::since(start);
    let json = || shown::applied_json(&request, &applied, &cost);
    tell(&args.shared, stdout_taken, json, || shown::applied_text(&request, &applied, &cost));
    Ok(())
}
