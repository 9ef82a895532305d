//! The check itself: lines in, findings out. Bounded memory: a state for each instance, the hashes of the last lines,
//! holes and what names them.

use super::Options;
use super::holes::{Holes, Missing, Named};
use super::line::{Checkpoint, Gap, Line, Own, Previous, Stop};
use super::report::{End, InstanceReport, MAX_TOLD, Place, Problem, Report};
use crate::stream::chain::{Hash, PublicKey, Sealed};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// More instances than that are not followed.
const MAX_INSTANCES: usize = 100_000;

/// Takes a stream line by line.
#[derive(Debug)]
pub struct Verifier {
    options: Options,
    report: Report,
    instances: HashMap<String, Instance>,
    /// In the order in which they begin.
    order: Vec<String>,
    recent: Recent,
    holes: Holes,
    /// Instances that are said to have ended without a stop record.
    recovered: HashSet<String>,
}

#[derive(Debug, Default)]
struct Instance {
    first: u64,
    /// The number that is to come.
    next: u64,
    records: BTreeMap<String, u64>,
    /// The chain's value of its last line.
    chain: Option<Hash>,
    chained: bool,
    stop: Option<StopSums>,
    /// Another began that names this one as the one before.
    followed: bool,
    /// Records that are not there.
    missing: bool,
    /// Lines since the last good signature.
    unsigned: u64,
    losses: Losses,
    /// It has a good checkpoint.
    signed: bool,
}

/// What the stop record says, and how much came after it.
#[derive(Debug)]
struct StopSums {
    fits: bool,
    after: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Losses {
    merged: u64,
    operations_min: u64,
}

/// The last lines, to know one that is sent again.
#[derive(Debug, Default)]
struct Recent {
    hashes: VecDeque<Hash>,
    known: HashMap<Hash, Hash>,
    /// Values of the chain, which an instance may go on from after a crash, with the numbers of their lines.
    chains: HashMap<Hash, u64>,
}

impl Recent {
    fn has(&self, line: &Hash) -> bool {
        self.known.contains_key(line)
    }

    fn push(&mut self, line: Hash, chain: Option<Hash>, sequence: u64, window: usize) {
        while self.hashes.len() >= window.max(1) {
            let Some(oldest) = self.hashes.pop_front() else { break };
            if let Some(chain) = self.known.remove(&oldest) {
                self.chains.remove(&chain);
            }
        }
        let chain = chain.unwrap_or(Hash::NONE);
        self.hashes.push_back(line);
        self.known.insert(line, chain);
        self.chains.insert(chain, sequence);
    }
}

impl Verifier {
    /// Nothing read yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let key_given = options.public_key.is_some();
        Self {
            options,
            report: Report { key_given, operations_max: Some(0), ..Report::default() },
            instances: HashMap::new(),
            order: Vec::new(),
            recent: Recent::default(),
            holes: Holes::default(),
            recovered: HashSet::new(),
        }
    }

    /// A line that is longer than any record may be.
    pub fn oversized(&mut self, at: Place) {
        self.report.lines += 1;
        self.report.find(Problem::Invalid, Some(at), "longer than any record");
    }

    /// The next line, without its line end.
    pub fn line(&mut self, bytes: &[u8], at: Place) {
        self.report.lines += 1;
        let hash = Hash::of(bytes);
        if self.recent.has(&hash) {
            self.report.duplicates += 1;
            return;
        }
        match Line::read(bytes) {
            Ok(line) => {
                let chain = line.sealed.map(|sealed| sealed.chain);
                self.recent.push(hash, chain, line.own.sequence, self.options.window);
                self.record(&line, &at);
            }
            Err(problem) => self.report.find(Problem::Invalid, Some(at), problem),
        }
    }

    /// All lines were read.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let mut report = self.report;
        let lost_ends = self.holes.settle(&mut report);
        for id in &self.order {
            let Some(instance) = self.instances.remove(id) else { continue };
            let last = instance.next.wrapping_sub(1);
            let end = match &instance.stop {
                Some(_) => End::Stopped,
                None if self.recovered.contains(id) => End::Recovered,
                None if lost_ends.contains(&(id.clone(), last)) => End::Lost,
                None => End::Open,
            };
            if end == End::Open {
                let detail = format!("{id} ends with {last}: no stop record, and no later instance tells of it");
                report.find(Problem::OpenEnd, None, detail);
            }
            if instance.stop.as_ref().is_some_and(|stop| !stop.fits) && !instance.missing {
                report.find(
                    Problem::Totals,
                    None,
                    format!("the sums in the stop record of {id} are not those of its records"),
                );
            }
            if instance.signed && instance.stop.is_some() && instance.unsigned > 0 && !report.key_given {
                report.find(Problem::Unsigned, None, format!("{id} has no checkpoint after its stop record"));
            }
            report.unsigned_lines += instance.unsigned;
            report.instance_count += 1;
            if report.instances.len() < MAX_TOLD {
                let Instance { first, records, chained, .. } = instance;
                let instance_id = id.clone();
                report.instances.push(InstanceReport { instance_id, first, last, records, end, chained });
            }
        }
        if report.lines == 0 {
            report.find(Problem::Missing, None, "there is no line at all");
        }
        if report.key_given && report.unsigned_lines > 0 {
            let detail =
                format!("{} lines are covered by no signature of the key that was given", report.unsigned_lines);
            report.find(Problem::Unsigned, None, detail);
        }
        report.whole = report.finding_count == 0;
        report
    }

    fn record(&mut self, line: &Line<'_>, at: &Place) {
        let (own, sealed) = (&line.own, line.sealed);
        if let Some(sealed) = sealed
            && sealed.computed != sealed.chain
        {
            let detail = format!("sequence {} of {}: its bytes do not give its hash", own.sequence, own.instance_id);
            self.report.find(Problem::Edited, Some(at.clone()), detail);
        }
        *self.report.records.entry(own.kind.to_string()).or_default() += 1;
        let Some(mut instance) = self.instances.remove(&*own.instance_id).or_else(|| self.begin(own, sealed, at))
        else {
            return;
        };
        if instance.followed {
            let detail =
                format!("sequence {} of {}, after the start of the next instance", own.sequence, own.instance_id);
            self.report.find(Problem::AfterEnd, Some(at.clone()), detail);
        } else if own.sequence < instance.next {
            let detail =
                format!("sequence {} of {}, where {} is to come", own.sequence, own.instance_id, instance.next);
            self.report.find(Problem::Reordered, Some(at.clone()), detail);
        } else {
            self.next(&mut instance, own, sealed, at);
        }
        self.instances.insert(own.instance_id.to_string(), instance);
    }

    /// A record in its place, or after a hole.
    fn next(&mut self, instance: &mut Instance, own: &Own<'_>, sealed: Option<Sealed<'_>>, at: &Place) {
        if instance.chained != sealed.is_some() {
            let detail = format!("sequence {} of {}", own.sequence, own.instance_id);
            self.report.find(Problem::Unchained, Some(at.clone()), detail);
        }
        if own.sequence > instance.next {
            self.missing(instance, &own.instance_id, own.sequence - 1, at);
        } else if let (Some(sealed), Some(before)) = (sealed, instance.chain)
            && sealed.previous != before
        {
            let detail = format!("sequence {} of {} does not follow the line before it", own.sequence, own.instance_id);
            self.report.find(Problem::Broken, Some(at.clone()), detail);
        }
        if let Some(stop) = &mut instance.stop {
            stop.after += 1;
            if own.kind != "checkpoint" || stop.after > 1 {
                let detail = format!("sequence {} of {}, after its stop record", own.sequence, own.instance_id);
                self.report.find(Problem::AfterEnd, Some(at.clone()), detail);
            }
        }
        instance.chain = sealed.map(|sealed| sealed.chain);
        instance.unsigned += 1;
        instance.next = own.sequence.saturating_add(1);
        if let Some(gap) = &own.gap {
            self.gap(instance, gap, own);
        }
        if let Some(recovery) = &own.recovery {
            if recovery.operations_may_be_missing {
                self.report.operations_max = None;
            }
            if self.recovered.len() < MAX_INSTANCES {
                self.recovered.insert(recovery.instance_id.clone());
            }
        }
        if let Some(checkpoint) = &own.checkpoint {
            match check(checkpoint, own, sealed, self.options.public_key) {
                Ok(()) => {
                    (instance.unsigned, instance.signed) = (0, true);
                    self.report.checkpoints += 1;
                    if self.report.key_ids.len() < MAX_TOLD {
                        self.report.key_ids.insert(checkpoint.key_id.clone());
                    }
                }
                Err((problem, detail)) => {
                    let detail = format!("sequence {} of {}: {detail}", own.sequence, own.instance_id);
                    self.report.find(problem, Some(at.clone()), detail);
                }
            }
        }
        if let Some(Stop { records, losses }) = &own.stop {
            let told = losses.iter().fold(Losses::default(), |sum, loss| Losses {
                merged: sum.merged.saturating_add(loss.merged),
                operations_min: sum.operations_min.saturating_add(loss.operations_min),
            });
            let fits = *records == instance.records && told == instance.losses;
            instance.stop = Some(StopSums { fits, after: 0 });
        }
        *instance.records.entry(own.kind.to_string()).or_default() += 1;
    }

    /// The first record of an instance. None: one too many.
    fn begin(&mut self, own: &Own<'_>, sealed: Option<Sealed<'_>>, at: &Place) -> Option<Instance> {
        if self.order.len() >= MAX_INSTANCES {
            if self.order.len() == MAX_INSTANCES {
                self.order.push(String::new());
                self.report.find(Problem::TooMuch, Some(at.clone()), format!("more than {MAX_INSTANCES} instances"));
            }
            return None;
        }
        self.order.push(own.instance_id.to_string());
        let mut instance = Instance { first: own.sequence, chained: sealed.is_some(), ..Instance::default() };
        let previous = own.start.as_ref().map(|start| start.previous.as_ref());
        match previous {
            _ if own.sequence > 0 => {}
            None => {
                let detail = format!("{} begins with a record of the kind {}", own.instance_id, own.kind);
                self.report.find(Problem::NoStart, Some(at.clone()), detail);
            }
            Some(None) => instance.chain = Some(Hash::NONE),
            Some(Some(previous)) => self.follow(&mut instance, previous, own, sealed, at),
        }
        Some(instance)
    }

    /// Ties an instance to the one that its start record names.
    fn follow(
        &mut self,
        instance: &mut Instance,
        previous: &Previous,
        own: &Own<'_>,
        sealed: Option<Sealed<'_>>,
        at: &Place,
    ) {
        let Previous { instance_id: id, last_sequence: last } = previous;
        let Some(mut before) = self.instances.remove(id) else {
            // The same as a hole from its beginning to its end.
            let mut unseen = Instance::default();
            self.missing(&mut unseen, id, *last, at);
            return;
        };
        if before.followed {
            let detail = format!("{} says that it follows {id}, and so does another", own.instance_id);
            self.report.find(Problem::Broken, Some(at.clone()), detail);
        }
        before.followed = true;
        if *last >= before.next {
            self.missing(&mut before, id, *last, at);
        } else if last.checked_add(1) == Some(before.next) {
            // Its first line is held against this one, as if it were of the same instance.
            instance.chain = before.chain;
            instance.unsigned = std::mem::take(&mut before.unsigned);
            if before.chained && sealed.is_none() {
                let detail = format!("{} is not chained, and {id} before it is", own.instance_id);
                self.report.find(Problem::Unchained, Some(at.clone()), detail);
            }
        } else {
            // After a crash the agent may know less than it had delivered: it goes on from an earlier line, and what was
            // delivered after that one hangs beside the chain.
            let beside = before.unsigned.min(before.next.saturating_sub(*last).saturating_sub(1));
            instance.unsigned = std::mem::replace(&mut before.unsigned, beside) - beside;
            if sealed.is_some_and(|sealed| self.recent.chains.get(&sealed.previous) != Some(last)) {
                let detail = format!("{} does not follow line {last} of {id}", own.instance_id);
                self.report.find(Problem::Broken, Some(at.clone()), detail);
            }
        }
        self.instances.insert(id.clone(), before);
    }

    /// A hole from what is to come to `last`.
    fn missing(&mut self, instance: &mut Instance, id: &str, last: u64, at: &Place) {
        self.holes.missing(Missing {
            instance: id.to_owned(),
            first: instance.next,
            last,
            at: at.clone(),
            before: instance.chain,
            unsigned: std::mem::take(&mut instance.unsigned),
        });
        instance.missing = true;
        instance.next = last.saturating_add(1);
    }

    fn gap(&mut self, instance: &mut Instance, gap: &Gap, own: &Own<'_>) {
        instance.losses.merged = instance.losses.merged.saturating_add(gap.merged);
        instance.losses.operations_min = instance.losses.operations_min.saturating_add(gap.operations_min);
        self.report.operations_min = self.report.operations_min.saturating_add(gap.operations_min);
        let most = self.report.operations_max.zip(gap.operations_max);
        self.report.operations_max = most.map(|(sum, most)| sum.saturating_add(most));
        let elsewhere =
            self.options.endpoint.as_ref().zip(gap.endpoint.as_ref()).is_some_and(|(ours, its)| ours != its);
        if elsewhere {
            return;
        }
        for range in &gap.sequences {
            self.holes.named(Named {
                instance: range.instance_id.clone().unwrap_or_else(|| own.instance_id.to_string()),
                first: range.first,
                last: range.last,
                count: range.count,
                previous: range.previous.clone(),
                by: format!("{} of {}", own.sequence, own.instance_id),
            });
        }
    }
}

/// Whether a checkpoint is what it says.
fn check(
    checkpoint: &Checkpoint,
    own: &Own<'_>,
    sealed: Option<Sealed<'_>>,
    given: Option<PublicKey>,
) -> Result<(), (Problem, &'static str)> {
    let wrong = |detail| Err((Problem::Checkpoint, detail));
    let Some(sealed) = sealed else { return wrong("a checkpoint that is not chained") };
    let Some(signature) = sealed.signature else { return wrong("a checkpoint without a signature") };
    let Some(key) = PublicKey::parse(checkpoint.public_key.as_bytes()) else {
        return wrong("its public key is none");
    };
    if !key.has_signed(signature.signed, signature.base64) {
        return wrong("its signature is wrong");
    }
    if checkpoint.key_id != key.id() {
        return wrong("its key id is not that of its key");
    }
    if checkpoint.hash != sealed.previous.as_str() {
        return wrong("it does not sign the line before it");
    }
    let covers = &checkpoint.covers;
    if covers.instance_id != own.instance_id || covers.last.checked_add(1) != Some(own.sequence) {
        return wrong("it covers other records than those before it");
    }
    if given.is_some_and(|given| given != key) {
        return Err((Problem::ForeignKey, "signed by another key than the one that was given"));
    }
    Ok(())
}
