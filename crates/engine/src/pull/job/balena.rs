//! What it takes to have the image that a delta image leads to.

use coracle_codec::artifact::Dialect;
use coracle_codec::artifact::balena::DeltaImage;
use coracle_codec::oci::Manifest;

use super::super::plan::{Plan, Way};
use super::{At, Content, Deltas, Job, Planner};
use crate::Error;

impl Planner<'_> {
    /// The way to the target of the delta image `delta`, whose own manifest is `full` if it is known. Without that, a layer
    /// that is not here can come from its delta alone.
    pub(in crate::pull) fn balena_job(
        &mut self,
        name: &str,
        delta: &Manifest,
        image: &DeltaImage,
        full: Option<&Manifest>,
    ) -> Result<Job, Error> {
        let route = if self.deltas { self.route_to(&image.base)? } else { None };
        if let (None, Some(full)) = (&route, full) {
            // The image as any other: there may be deltas from what is here.
            self.notes.push(match self.deltas {
                true => format!("the delta image starts from the image {}, which is not here", image.base),
                false => "the delta image is not used, as was asked for".to_owned(),
            });
            return self.job(name, full, &image.target);
        }
        let layers = self.layers(full.unwrap_or(delta), &image.target);
        let away = layers.iter().any(|layer| layer.at == At::Away);
        let mut job = Job {
            name: name.to_owned(),
            config: image.target.clone(),
            layers,
            deltas: Vec::new(),
            plan: Plan { ways: Vec::new(), bytes: 0, requests: 0, cost: 0 },
            whole: full.is_some(),
        };
        let Some(route) = route else {
            if away {
                return Err(Error::NoBasis { image: self.source.name().to_owned(), base: image.base });
            }
            self.replan(&mut job);
            return Ok(job);
        };
        let contents = job.layers.iter().map(|layer| {
            let sizes = image.sizes.as_ref().and_then(|sizes| sizes.get(layer.number).copied());
            // Where nobody tells, neither a label nor a manifest, the caller's bound is all there is.
            let unknown = full.is_none().then_some(u64::MAX);
            let blob = delta.layers()[layer.number].clone();
            Some(Content { blob, size: sizes.filter(|size| *size > 0).or(unknown), from: None })
        });
        let contents = contents.collect();
        let name = format!("delta image {}", delta.digest());
        job.deltas.push(Deltas { name, dialect: Dialect::Balena, route, contents });
        if job.whole {
            self.replan(&mut job);
            return Ok(job);
        }
        job.plan.ways = job
            .layers
            .iter()
            .map(|layer| if layer.at == At::Away { Way::Delta(0) } else { Way::Have })
            .collect();
        let fetched = job.layers.iter().filter(|layer| layer.at == At::Away);
        job.plan.bytes = fetched.clone().map(|layer| layer.blob.size).fold(0, u64::saturating_add);
        job.plan.requests = fetched.count() as u64;
        job.plan.cost = job.plan.bytes.saturating_add(job.plan.requests.saturating_mul(self.prices.request));
        Ok(job)
    }
}
