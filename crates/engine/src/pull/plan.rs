//! The cheapest way to each layer: a pure function of what there is and what it costs.

/// What things cost besides the bytes that are fetched, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// A request: what a connection carries while an answer is waited for. 50 ms of 1.3 Mbit/s.
    pub request: u64,
    /// Processor time for each MiB of a layer that is fetched whole: decompression.
    pub full_mib: u64,
    /// The same for one that a tar-diff makes.
    pub tar_diff_mib: u64,
    /// The same for one that a native delta makes.
    pub native_mib: u64,
}

impl Default for Prices {
    /// A native delta makes a MiB in 10 ms, a tar-diff in 4 ms, gzip in 3 ms; a second of processor time counts as 256
    /// KiB of line, as it is used beside the line and not instead of it.
    fn default() -> Self {
        Prices { request: 8 << 10, full_mib: 768, tar_diff_mib: 1 << 10, native_mib: 2560 }
    }
}

/// A layer of the target, or several that are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Whether it is here.
    pub have: bool,
    /// Bytes of its blob.
    pub full: u64,
    /// Bytes of its tar, as far as they are known or guessed.
    pub tar: u64,
    /// What it takes to fetch the parts of it that are not here, if that can be done.
    pub chunks: Option<Chunks>,
}

/// Parts of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    /// Bytes of them.
    pub bytes: u64,
    /// Requests for them.
    pub requests: u64,
    /// What a request costs on this line, in bytes.
    pub request: u64,
}

/// How a delta makes a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From a tar-diff.
    TarDiff,
    /// From a native delta.
    Native,
}

/// A delta for one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of it.
    pub bytes: u64,
    /// How it makes the layer.
    pub kind: Kind,
}

/// Deltas from one source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// What has to be paid once to be able to use any of them: the way to the source, if it is not here.
    pub entry: u64,
    /// For each need a delta, if there is one.
    pub steps: Vec<Option<Step>>,
}

/// Where a layer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is here.
    Have,
    /// It is made by the delta of this offer.
    Delta(usize),
    /// The parts of it that are not here are fetched.
    Chunks,
    /// It is fetched whole.
    Full,
}

/// For each need a way, and what all of them cost together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each need.
    pub ways: Vec<Way>,
    /// Bytes of blobs to fetch, without entries.
    pub bytes: u64,
    /// Requests for them.
    pub requests: u64,
    /// The price of all, entries included.
    pub cost: u64,
}

/// Offers with an entry that are tried in all combinations; of more, the first ones count.
const MAX_ENTRIES: usize = 8;

/// Finds the cheapest plan. Among equals it prefers what needs less: whole layers to deltas, earlier offers to later.
///
/// Exact for up to 8 offers with an entry: each set of entries is tried, and with a given set layers do not depend on
/// each other.
#[must_use]
pub fn plan(needs: &[Need], offers: &[Offer], prices: &Prices) -> Plan {
    let costly: Vec<usize> =
        (0..offers.len()).filter(|&offer| offers[offer].entry > 0).take(MAX_ENTRIES).collect();
    let sets = 0..1u32 << costly.len();
    let plans = sets.map(|set| {
        let usable = |offer: usize| {
            offers[offer].entry == 0
                || costly.iter().position(|other| *other == offer).is_some_and(|bit| set >> bit & 1 == 1)
        };
        with(needs, offers, prices, usable)
    });
    plans.reduce(|best, next| if next.cost < best.cost { next } else { best }).unwrap_or(Plan {
        ways: Vec::new(),
        bytes: 0,
        requests: 0,
        cost: 0,
    })
}

/// The cheapest plan with the offers that are `usable`, whose entries are all paid if they are used.
fn with(needs: &[Need], offers: &[Offer], prices: &Prices, usable: impl Fn(usize) -> bool) -> Plan {
    let mut plan = Plan { ways: Vec::with_capacity(needs.len()), bytes: 0, requests: 0, cost: 0 };
    let mut entered = vec![false; offers.len()];
    for (number, need) in needs.iter().enumerate() {
        if need.have {
            plan.ways.push(Way::Have);
            continue;
        }
        let mib = |price: u64| (need.tar >> 10).saturating_mul(price) >> 10;
        let (mut way, mut bytes) = (Way::Full, need.full);
        let mut cost = need.full.saturating_add(mib(prices.full_mib));
        for (at, offer) in offers.iter().enumerate().filter(|(at, _)| usable(*at)) {
            let Some(Some(step)) = offer.steps.get(number) else { continue };
            let work = match step.kind {
                Kind::TarDiff => prices.tar_diff_mib,
                Kind::Native => prices.native_mib,
            };
            let price = step.bytes.saturating_add(mib(work));
            if price < cost {
                (way, bytes, cost) = (Way::Delta(at), step.bytes, price);
            }
        }
        let mut requests = 1;
        if let Some(chunks) = need.chunks {
            let price = chunks.bytes.saturating_add(chunks.requests.saturating_mul(chunks.request));
            // Contents are copied and hashed, as a tar-diff does.
            let price = price.saturating_add(mib(prices.tar_diff_mib));
            if price < cost {
                (way, bytes, cost, requests) = (Way::Chunks, chunks.bytes, price, chunks.requests);
            }
        }
        if let Way::Delta(at) = way {
            entered[at] = true;
        }
        plan.ways.push(way);
        plan.bytes = plan.bytes.saturating_add(bytes);
        plan.requests += requests;
        plan.cost = plan.cost.saturating_add(cost).saturating_add(prices.request);
    }
    for (offer, entered) in offers.iter().zip(entered) {
        if entered {
            plan.cost = plan.cost.saturating_add(offer.entry);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRICES: Prices = Prices { request: 100, full_mib: 1, tar_diff_mib: 10, native_mib: 50 };

    fn need(full: u64) -> Need {
        Need { have: false, full, tar: full * 3, chunks: None }
    }

    fn offer(entry: u64, steps: &[Option<u64>]) -> Offer {
        let step = |bytes: &Option<u64>| bytes.map(|bytes| Step { bytes, kind: Kind::Native });
        Offer { entry, steps: steps.iter().map(step).collect() }
    }

    #[test]
    fn takes_what_is_smaller() {
        let needs = [need(1000), Need { have: true, ..need(9) }, need(50)];
        let offers = [offer(0, &[Some(20), None, Some(60)]), offer(0, &[Some(30), None, None])];
        let plan = plan(&needs, &offers, &PRICES);
        assert_eq!(plan.ways, [Way::Delta(0), Way::Have, Way::Full]);
        assert_eq!((plan.bytes, plan.requests), (70, 2));
    }

    #[test]
    fn pays_an_entry_only_if_it_saves_more() {
        let needs = [need(1000), need(1000)];
        let far = |entry| [offer(entry, &[Some(10), Some(10)])];
        assert_eq!(plan(&needs, &far(1900), &PRICES).ways, [Way::Delta(0); 2]);
        assert_eq!(plan(&needs, &far(2000), &PRICES).ways, [Way::Full; 2]);
    }

    #[test]
    fn work_counts() {
        let needs = [Need { have: false, full: 1 << 20, tar: 100 << 20, chunks: None }];
        let near = [offer(0, &[Some((1 << 20) - 4000)])];
        assert_eq!(plan(&needs, &near, &PRICES).ways, [Way::Full]);
        assert_eq!(plan(&needs, &near, &Prices { native_mib: 1, ..PRICES }).ways, [Way::Delta(0)]);
    }

    /// What a plan costs, computed by itself.
    fn price(needs: &[Need], offers: &[Offer], ways: &[Way], prices: &Prices) -> Option<u64> {
        let (mut cost, mut used) = (0u64, vec![false; offers.len()]);
        for (number, (need, way)) in needs.iter().zip(ways).enumerate() {
            let mib = |price: u64| (need.tar >> 10).saturating_mul(price) >> 10;
            cost = match way {
                Way::Have if need.have => continue,
                Way::Have => return None,
                Way::Chunks => {
                    let chunks = need.chunks?;
                    let requests = chunks.requests * chunks.request;
                    cost + chunks.bytes + requests + mib(prices.tar_diff_mib) + prices.request
                }
                Way::Full => cost + need.full + mib(prices.full_mib) + prices.request,
                Way::Delta(at) => {
                    used[*at] = true;
                    let step = offers[*at].steps[number]?;
                    let work =
                        if step.kind == Kind::Native { prices.native_mib } else { prices.tar_diff_mib };
                    cost + step.bytes + mib(work) + prices.request
                }
            };
        }
        Some(
            cost + offers
                .iter()
                .zip(used)
                .map(|(offer, used)| if used { offer.entry } else { 0 })
                .sum::<u64>(),
        )
    }

    fn all_ways(offers: usize, needs: usize) -> Vec<Vec<Way>> {
        let choices: Vec<Way> =
            [Way::Have, Way::Chunks, Way::Full].into_iter().chain((0..offers).map(Way::Delta)).collect();
        (0..needs).fold(vec![Vec::new()], |plans, _| {
            plans
                .iter()
                .flat_map(|plan| choices.iter().map(move |way| [plan.as_slice(), &[*way]].concat()))
                .collect()
        })
    }

    prop_compose! {
        fn step()(bytes in 0u64..2_000_000, native: bool, there in 0..4u8) -> Option<Step> {
            let kind = if native { Kind::Native } else { Kind::TarDiff };
            (there > 0).then_some(Step { bytes, kind })
        }
    }

    prop_compose! {
        fn chunks()(bytes in 0u64..2_000_000, requests in 0u64..100, there: bool) -> Option<Chunks> {
            there.then_some(Chunks { bytes, requests, request: 3000 })
        }
    }

    proptest! {
        #[test]
        fn no_plan_is_cheaper(
            needs in prop::collection::vec(
                (any::<bool>(), 0u64..2_000_000, 0u64..50_000_000, chunks()), 0..4),
            offers in prop::collection::vec(
                (prop_oneof![Just(0u64), 1u64..1_000_000], prop::collection::vec(step(), 4)), 0..4),
        ) {
            let needs: Vec<Need> =
                needs.into_iter().map(|(have, full, tar, chunks)| Need { have, full, tar, chunks }).collect();
            let offers: Vec<Offer> =
                offers.into_iter().map(|(entry, steps)| Offer { entry, steps }).collect();
            let prices = Prices::default();
            let found = plan(&needs, &offers, &prices);
            prop_assert_eq!(price(&needs, &offers, &found.ways, &prices), Some(found.cost));
            // What is here is never fetched.
            let best = all_ways(offers.len(), needs.len()).into_iter()
                .filter(|ways| ways.iter().zip(&needs).all(|(way, need)| (*way == Way::Have) == need.have))
                .filter_map(|ways| price(&needs, &offers, &ways, &prices)).min();
            prop_assert_eq!(Some(found.cost), best);
        }

        #[test]
        fn never_dearer_than_without_deltas(
            needs in prop::collection::vec((0u64..u64::MAX / 8, 0u64..u64::MAX / 8), 0..6),
            steps in prop::collection::vec(step(), 6),
        ) {
            let needs: Vec<Need> =
                needs.into_iter().map(|(full, tar)| Need { have: false, full, tar, chunks: None }).collect();
            let with = plan(&needs, &[Offer { entry: 0, steps }], &Prices::default());
            let without = plan(&needs, &[], &Prices::default());
            prop_assert!(with.cost <= without.cost);
            prop_assert!(without.ways.iter().all(|way| *way == Way::Full));
        }
    }
}
