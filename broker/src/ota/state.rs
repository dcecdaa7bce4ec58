//! What is decided under the desk's lock, and what follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;
use turnpike_authz::audit::{Action as Audited, Event, Key, Subject, Value};
use turnpike_authz::labels::Labels;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::registry::Registry;
use turnpike_core::clock::Now;
use turnpike_core::durable::Op;
use turnpike_ota::campaign::{Campaign, Fault, Life, State as Stage, Why};
use turnpike_ota::catalog::{Catalog, Fitting, Suited, Unsuited};
use turnpike_ota::filter::Candidate;
use turnpike_ota::ids::{CampaignId, FirmwareId};
use turnpike_ota::machine::{Kind, Reason};
use turnpike_ota::schedule::{Action, AddError, Recorded, Scheduler};
use turnpike_ota::target::{Hardware, Target, Version};

use super::changing::judged;
use super::offers::{Offered, Outgoing};
use super::push::Push;
use super::record::{self, Reported, Wanted};
use super::{CampaignRequest, Invalid, OtaDesk};
use crate::audit::now_ms;

/// Devices whose reports are kept; those beyond count as silent.
const REPORTED_MAX: usize = 2_000_000;
/// Records that one commit removes.
pub(super) const DELETED_AT_ONCE: usize = 1000;

/// All that is known.
#[derive(Debug, Default)]
pub struct State {
    /// All firmware.
    pub catalog: Catalog,
    /// All campaigns.
    pub scheduler: Scheduler,
    pub(super) campaigns: BTreeMap<CampaignId, Wanted>,
    /// By product and device.
    pub(super) reported: HashMap<Box<str>, HashMap<Box<str>, Reported>>,
    /// Connections of each device that is there, by product and device.
    pub(super) here: HashMap<(Box<str>, Box<str>), u32>,
    /// Devices that match a campaign by now and aren't in it, since they didn't when its groups were drawn.
    pub(super) left_out: BTreeMap<CampaignId, BTreeSet<Box<str>>>,
    /// Patches that devices under way were offered, by campaign and device; who isn't here was offered the whole firmware.
    pub(super) patched: HashMap<CampaignId, HashMap<Box<str>, FirmwareId>>,
    /// Campaigns that couldn't be taken up.
    pub(super) invalid: BTreeMap<CampaignId, Invalid>,
    /// The greatest number of a campaign.
    pub(super) given: u64,
    /// Products that are no more, of which something may be left.
    pub(super) swept: BTreeSet<ProductKey>,
}

/// There is no such thing, or it can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// No firmware that a campaign could have.
    #[error("there is no such firmware, or it is a patch, which goes out with its whole firmware")]
    Firmware,
    /// It isn't ready.
    #[error("the firmware isn't ready")]
    NotReady,
    /// What was asked for can't be read.
    #[error("{0}")]
    Request(String),
    /// Or has faults.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
    /// It could go to no device as things are.
    #[error("{0}")]
    Unsuited(Unsuited),
    /// Or can't be done.
    #[error(transparent)]
    Add(#[from] AddError),
    /// It couldn't be recorded: there is none.
    #[error("the campaign can't be recorded at the moment, and there is none; try again later")]
    Store,
}

/// What came of actions.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// When this resolves, all records are on disk.
    pub(super) committed: Option<oneshot::Receiver<()>>,
    /// Records to be handed in.
    pub(super) ops: Vec<Op>,
    /// Messages to be sent.
    pub(super) offers: Vec<Push>,
    /// Those for the device that is to be answered, which aren't among them.
    pub(super) answer: Vec<Outgoing>,
    /// Its campaign in which it has come back with the old version.
    pub(super) old_version: Option<CampaignId>,
}

impl State {
    /// What a device has reported.
    pub(super) fn report_of(&self, product: &str, device: &str) -> Option<&Reported> {
        self.reported.get(product)?.get(device)
    }

    /// Remembers a device's report. Gives the record, if anything is new.
    pub(super) fn put_report(&mut self, product: &str, device: &str, reported: Reported) -> Option<Op> {
        if self.report_of(product, device) == Some(&reported) {
            return None;
        }
        let is_known = self.report_of(product, device).is_some();
        if !is_known && self.reported.values().map(HashMap::len).sum::<usize>() >= REPORTED_MAX {
            return None;
        }
        let op = record::put_reported(product, device, &reported);
        self.reported.entry(product.into()).or_default().insert(device.into(), reported);
        Some(op)
    }

    /// What an operator has asked for.
    #[must_use]
    pub fn request(&self, id: CampaignId) -> Option<&CampaignRequest> {
        self.campaigns.get(&id).map(|wanted| &wanted.request)
    }

    /// Whether a campaign has a firmware, which it needs for as long as it is kept; or may offer it, if it is a patch.
    #[must_use]
    pub fn is_in_use(&self, id: FirmwareId) -> bool {
        let Some(firmware) = self.catalog.get(id) else { return false };
        if self.invalid.values().any(|invalid| invalid.request.firmware == id.0) {
            return true;
        }
        self.scheduler.campaigns().any(|campaign| {
            let settings = campaign.settings();
            let patches = firmware.base.is_some()
                && *settings.filter.product == *firmware.product.as_str()
                && settings.target == firmware.target
                && settings.version == firmware.version;
            settings.firmware == id || patches && !campaign.life().state.is_final()
        })
    }

    /// The file that a device is offered in a campaign; `again`: the one that it has begun with, as long as that may go out.
    pub(super) fn suited(
        &self,
        id: CampaignId,
        (product, device): (&str, &str),
        again: bool,
    ) -> Result<Suited<'_>, Unsuited> {
        let campaign = self.scheduler.campaign(id).ok_or(Unsuited::NoSuchFirmware)?;
        let settings = campaign.settings();
        let reported = self.report_of(product, device);
        let version = reported.and_then(|reported| reported.versions.get(&settings.target));
        let hardware = reported.and_then(|reported| reported.hardware.as_ref());
        let fitting = Fitting { product, target: &settings.target, hardware, version };
        let begun = self.offered_file(id, device, settings.firmware);
        // One that has only been offered something begins with what suits what it reports now.
        let has_begun = again && self.kind(id, device).is_some_and(|kind| kind != Kind::Offered);
        let suited = if has_begun {
            self.catalog.suits_again(settings.firmware, begun, &fitting)?
        } else {
            self.catalog.suits(settings.firmware, &fitting)?
        };
        let whole = self.catalog.get(settings.firmware).ok_or(Unsuited::NoSuchFirmware)?;
        let is_older = version.is_some_and(|version| self.catalog.is_older(whole, version));
        if !settings.downgrade && is_older { Err(Unsuited::Older) } else { Ok(suited) }
    }

    /// The file of the last offer to a device that is under way.
    fn offered_file(&self, id: CampaignId, device: &str, whole: FirmwareId) -> FirmwareId {
        self.patched.get(&id).and_then(|patched| patched.get(device)).copied().unwrap_or(whole)
    }

    /// Windows are in the device's zone, of which nothing is known before its first report.
    pub(super) fn awaits_zone(&self, id: CampaignId, product: &str, device: &str) -> bool {
        let windows = self.scheduler.campaign(id).is_some_and(|campaign| !campaign.settings().windows.is_empty());
        windows && self.report_of(product, device).is_none()
    }

    /// The campaign that a device has an offer of, which is of this file.
    pub(super) fn campaign_of(&self, product: &str, device: &str, file: FirmwareId) -> Option<CampaignId> {
        let firmware = self.catalog.get(file).filter(|firmware| firmware.product.as_str() == product)?;
        let id = self.scheduler.active(product, device, &firmware.target)?;
        let whole = self.scheduler.campaign(id)?.settings().firmware;
        (self.offered_file(id, device, whole) == file).then_some(id)
    }

    /// Takes campaigns up again; those that can't be are set aside. Gives what is left of those that were being deleted.
    pub(super) fn restore(
        &mut self,
        mut campaigns: Vec<(CampaignId, Wanted, Life)>,
        mut standings: HashMap<CampaignId, Vec<Recorded>>,
        registry: &Registry,
        now: Now,
    ) -> Vec<Op> {
        campaigns.sort_by_key(|(id, ..)| *id);
        let mut left = Vec::new();
        for (id, wanted, life) in campaigns {
            self.given = self.given.max(id.0);
            let firmware = self.catalog.get(FirmwareId(wanted.request.firmware));
            if firmware.is_some_and(|firmware| self.swept.contains(&firmware.product)) {
                // Its product is being deleted.
                left.extend([record::put_given(CampaignId(self.given)), Op::RegistryDelete(record::campaign_key(id))]);
                continue;
            }
            let records = standings.remove(&id).unwrap_or_default();
            let campaign = match self.read_campaign(id, &wanted, &life) {
                Ok(campaign) => campaign,
                Err(why) => {
                    self.set_aside(id, (wanted, life), why);
                    continue;
                }
            };
            let people = People::of(registry, campaign.settings().filter.product.as_ref());
            let target = campaign.settings().target.clone();
            let mut candidates = people.candidates(&self.reported, &target);
            if let Some(left_out) = self.left_out.get(&id) {
                candidates.retain(|candidate| !left_out.contains(candidate.device));
            }
            match self.scheduler.restore(campaign, candidates, records, now) {
                Ok(()) => {
                    self.campaigns.insert(id, wanted);
                }
                Err(error) => self.set_aside(id, (wanted, life), error.to_string()),
            }
        }
        self.patched.retain(|id, _| self.campaigns.contains_key(id));
        // Of campaigns that were being deleted.
        let standings = standings.into_iter().flat_map(|(id, records)| {
            records.into_iter().map(move |recorded| Op::RegistryDelete(record::standing_key(id, &recorded.device)))
        });
        left.extend(standings);
        left.extend(self.forget_left_out());
        left
    }

    /// Of campaigns that were being deleted.
    fn forget_left_out(&mut self) -> Vec<Op> {
        let is_kept = |id: &CampaignId| self.campaigns.contains_key(id) || self.invalid.contains_key(id);
        let gone: Vec<_> = self.left_out.keys().copied().filter(|id| !is_kept(id)).collect();
        let ops =
            |id| self.left_out.remove(&id).into_iter().flatten().map(move |name| record::delete_left_out(id, &name));
        gone.into_iter().flat_map(ops).collect()
    }

    /// Forgets a campaign by the scheduler's leave. Gives what is to be committed, part by part: each is a commit of its own.
    pub(super) fn take_campaign<E>(
        &mut self,
        id: CampaignId,
        leave: impl FnOnce(&mut Scheduler) -> Result<(), E>,
    ) -> Result<Vec<Vec<Op>>, E> {
        let members = self.scheduler.members(id, 0).filter_map(|(_, member)| self.scheduler.name(member.device));
        let mut standings: Vec<_> =
            members.map(|(_, device)| Op::RegistryDelete(record::standing_key(id, device))).collect();
        // Of one that couldn't be taken up the next start removes them.
        if self.invalid.remove(&id).is_none() {
            leave(&mut self.scheduler)?;
        }
        self.patched.remove(&id);
        let left_out = self.left_out.remove(&id).into_iter().flatten();
        standings.extend(left_out.map(|device| record::delete_left_out(id, &device)));
        self.campaigns.remove(&id);
        let first = vec![record::put_given(CampaignId(self.given)), Op::RegistryDelete(record::campaign_key(id))];
        let rest = standings.chunks(DELETED_AT_ONCE).map(<[Op]>::to_vec);
        Ok(std::iter::once(first).chain(rest).collect())
    }

    /// A device has ended, and with it what is known of it.
    pub(super) fn forget_device(&mut self, product: &str, device: &str) -> Option<Op> {
        self.reported.get_mut(product)?.remove(device)?;
        Some(record::delete_reported(product, device))
    }
}

/// The patch that a device was offered, which is forgotten once it isn't under way any more.
fn patch_of(
    patched: &mut HashMap<CampaignId, HashMap<Box<str>, FirmwareId>>,
    campaign: CampaignId,
    device: &str,
    kind: Kind,
) -> Option<FirmwareId> {
    let of_campaign = patched.get_mut(&campaign)?;
    if kind.is_under_way() {
        return of_campaign.get(device).copied();
    }
    of_campaign.remove(device);
    if of_campaign.is_empty() {
        patched.remove(&campaign);
    }
    None
}

impl State {
    /// A device's record in a campaign, as it stands.
    fn put_member(&self, id: CampaignId, device: &str) -> Option<Op> {
        let member = self.scheduler.member(id, device)?;
        let patch = self.patched.get(&id).and_then(|patched| patched.get(device)).copied();
        Some(record::put_standing(id, device, member.standing, member.retries, patch))
    }

    /// Notes which file a device is offered. Gives its record, if that is another one than before.
    pub(super) fn note_file(&mut self, id: CampaignId, device: &str, file: FirmwareId) -> Option<Op> {
        let whole = self.scheduler.campaign(id)?.settings().firmware;
        if self.offered_file(id, device, whole) == file {
            return None;
        }
        if file == whole {
            self.patched.get_mut(&id)?.remove(device);
        } else {
            self.patched.entry(id).or_default().insert(device.into(), file);
        }
        self.put_member(id, device)
    }
}

/// Devices of a product, as a campaign's candidates are drawn from them.
struct People {
    product: Box<str>,
    devices: Vec<(DeviceName, turnpike_authz::registry::Device)>,
    /// Of those that have some.
    labels: BTreeMap<DeviceName, Arc<Labels>>,
}

impl People {
    fn of(registry: &Registry, product: &str) -> Self {
        let (devices, labels) = (registry.devices(product, None, usize::MAX), registry.all_labels(product));
        Self { product: product.into(), devices, labels }
    }

    fn candidates<'a>(
        &'a self,
        reported: &'a HashMap<Box<str>, HashMap<Box<str>, Reported>>,
        target: &'a Target,
    ) -> Vec<Candidate<'a>> {
        let said = reported.get(&self.product);
        let candidates = self.devices.iter().map(|(name, device)| {
            let said = said.and_then(|said| said.get(name.as_str()));
            let labels = self.labels.get(name).map(Arc::as_ref);
            candidate((&self.product, name.as_str(), device.created_at_s), said, target, labels)
        });
        candidates.collect()
    }
}

/// A device, and when it was created, as a campaign for a target sees it.
pub(super) fn candidate<'a>(
    (product, device, created_at_s): (&'a str, &'a str, u64),
    said: Option<&'a Reported>,
    target: &Target,
    labels: Option<&'a Labels>,
) -> Candidate<'a> {
    Candidate {
        product,
        device,
        version: said.and_then(|said| said.versions.get(target)).map(Version::as_str),
        hardware: said.and_then(|said| said.hardware.as_ref()).map(Hardware::as_str),
        tags: labels.map(Labels::tags).unwrap_or_default(),
        region: labels.and_then(Labels::region),
        created_at_s,
    }
}

/// What an operator may do to a campaign that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Let it start.
    Approve,
    /// No more offers.
    Pause,
    /// Offers again.
    Resume,
    /// No more at all.
    Stop,
    /// Failed devices once more.
    Retry,
}

impl OtaDesk {
    /// Prepares a campaign from a request, and draws its groups. The receiver resolves when it is on disk; then it is to be admitted.
    ///
    /// # Errors
    /// [`Unknown`]; nothing has changed then.
    pub(super) fn prepare_campaign(
        &self,
        request: CampaignRequest,
        salt: u64,
    ) -> Result<(CampaignId, oneshot::Receiver<()>), Unknown> {
        let shell = self.shell();
        let now = shell.control.now();
        let mut state = self.state.lock();
        let firmware = state.catalog.get(FirmwareId(request.firmware)).filter(|firmware| firmware.base.is_none());
        let firmware = firmware.ok_or(Unknown::Firmware)?;
        judged(&state, firmware.id)?;
        let settings = request.settings(firmware, salt).map_err(Unknown::Request)?;
        let id = CampaignId(state.given + 1);
        let campaign = Campaign::new(id, settings, now.unix_s()).map_err(Unknown::Faults)?;
        let people = People::of(&shell.registry, &campaign.settings().filter.product);
        let target = campaign.settings().target.clone();
        let state = &mut *state;
        let candidates = people.candidates(&state.reported, &target);
        let born_s = campaign.life().created_at_s;
        // A restart couldn't tell them from those that are created after the campaign, in the same second.
        let young = candidates.iter().filter(|candidate| candidate.created_at_s >= born_s);
        let young: Vec<Box<str>> = young.map(|candidate| candidate.device.into()).collect();
        state.scheduler.prepare(campaign, candidates, now)?;
        state.given = id.0;
        let wanted = Wanted { request, salt };
        let mut ops: Vec<_> = young.iter().filter_map(|name| state.put_member(id, name)).collect();
        ops.extend(state.scheduler.campaign(id).map(|campaign| record::put_campaign(id, &wanted, campaign.life())));
        state.campaigns.insert(id, wanted);
        Ok((id, shell.control.commit_registry(ops)))
    }

    /// A campaign that was prepared isn't on disk, and there won't be one. The receiver resolves when that is certain.
    pub(super) fn withdraw_campaign(&self, id: CampaignId) -> oneshot::Receiver<()> {
        let mut state = self.state.lock();
        state.scheduler.withdraw(id);
        state.campaigns.remove(&id);
        let mut ops = vec![record::put_given(CampaignId(state.given)), Op::RegistryDelete(record::campaign_key(id))];
        // Records of devices in it the next start removes.
        ops.extend(state.forget_left_out());
        self.shell().control.commit_registry(ops)
    }

    /// Does to a campaign what an operator wants. The receiver resolves when it is on disk.
    ///
    /// # Errors
    /// There is none, or it can't be done to it now.
    pub fn order(
        &self,
        id: CampaignId,
        order: Order,
        by: &str,
    ) -> Result<Option<oneshot::Receiver<()>>, turnpike_ota::campaign::Refusal> {
        let now = self.shell().control.now();
        let mut state = self.state.lock();
        let actions = match order {
            Order::Approve => state.scheduler.approve(id, by, now),
            Order::Pause => state.scheduler.pause(id, now),
            Order::Resume => state.scheduler.resume(id, now),
            Order::Stop => state.scheduler.stop(id, now),
            Order::Retry => state.scheduler.retry_failed(id, now),
        }?;
        let carried = self.carry_out(&mut state, actions, None, now);
        // Under the lock: after that commit, and before any other.
        let said = (!carried.offers.is_empty()).then(|| self.shell().control.commit_registry(Vec::new()));
        drop(state);
        self.say(said, carried.offers);
        Ok(carried.committed)
    }

    /// Forgets a campaign that is over. The receiver resolves when that is on disk.
    ///
    /// # Errors
    /// There is none, or it isn't over.
    pub fn delete_campaign(&self, id: CampaignId) -> Result<oneshot::Receiver<()>, turnpike_ota::campaign::Refusal> {
        let control = &self.shell().control;
        let mut state = self.state.lock();
        let parts = state.take_campaign(id, |scheduler| scheduler.remove(id))?;
        // What a crash leaves is removed at the next start.
        let mut committed = control.commit_registry(Vec::new());
        for part in parts {
            committed = control.commit_registry(part);
        }
        Ok(committed)
    }

    /// Changes the catalog, durably: what is planned under the lock is applied once it is on disk. The caller holds [`OtaDesk::changing`].
    pub fn commit_catalog(&self, changes: &[turnpike_ota::catalog::Change]) -> oneshot::Receiver<()> {
        let ops = changes.iter().map(|change| turnpike_ota::record::encode(&change.clone().into())).collect();
        self.shell().control.commit_registry(ops)
    }

    pub(super) fn carry_out(
        &self,
        state: &mut State,
        actions: Vec<Action>,
        answered: Option<(&str, &str)>,
        now: Now,
    ) -> Carried {
        self.carry_out_with(state, actions, answered, Vec::new(), now)
    }

    /// Does what the scheduler asks for: hands records to the committer, and gives the offers. Those for the device `answered` come apart.
    pub(super) fn carry_out_with(
        &self,
        state: &mut State,
        actions: Vec<Action>,
        answered: Option<(&str, &str)>,
        ops: Vec<Op>,
        now: Now,
    ) -> Carried {
        let mut carried = Carried { ops, ..Carried::default() };
        let mut left = VecDeque::from(actions);
        while let Some(action) = left.pop_front() {
            match action {
                Action::Offer { campaign, device, again } => {
                    let Some((product, name)) = state.scheduler.name(device).map(|(p, d)| (Box::from(p), Box::from(d)))
                    else {
                        continue;
                    };
                    let whose = Offered { campaign, device, product, name, again };
                    left.extend(self.offer(state, whose, answered, &mut carried, now));
                }
                Action::Changed { campaign } => carried.ops.extend(state.campaigns.get(&campaign).and_then(|wanted| {
                    let life = state.scheduler.campaign(campaign)?.life();
                    Some(record::put_campaign(campaign, wanted, life))
                })),
                Action::DeviceChanged { campaign, device, standing, retries } => {
                    let Some((product, name)) = state.scheduler.name(device) else { continue };
                    let patch = patch_of(&mut state.patched, campaign, name, standing.state.kind());
                    carried.ops.push(record::put_standing(campaign, name, standing, retries, patch));
                    if answered == Some((product, name)) && standing.reason == Reason::OLD_VERSION {
                        carried.old_version = Some(campaign);
                    }
                }
                // Whoever shows a token is asked for the campaign's state.
                Action::VoidTokens { .. } => {}
                Action::Stopped { campaign, why } => self.tell_stopped(state, campaign, why),
                Action::GroupBegins { campaign, group } => {
                    tracing::info!(%campaign, group, "a group of a campaign begins");
                }
            }
        }
        let control = &self.shell().control;
        let speaks = !carried.offers.is_empty() || !carried.answer.is_empty();
        // What is said may have been decided before, and not be on disk yet.
        if !carried.ops.is_empty() || speaks && control.is_committing() {
            carried.committed = Some(control.commit_registry(std::mem::take(&mut carried.ops)));
        }
        carried
    }

    fn tell_stopped(&self, state: &State, campaign: CampaignId, why: Why) {
        tracing::info!(%campaign, ?why, "a campaign stops");
        if why == Why::ByHand {
            // On record as the operator's order.
            return;
        }
        let Some(settings) = state.scheduler.campaign(campaign).map(Campaign::settings) else { return };
        let Ok(product) = ProductKey::parse(&settings.filter.product) else { return };
        let word = if why == Why::Ended { "ended" } else { "errors" };
        let details = [(Key::Campaign, Value::Number(campaign.0)), (Key::How, Value::Word(word))];
        let target = Some(Subject::product(&product));
        let event = Event { target, ..Event::own(now_ms(), Audited::CampaignStop, &details) };
        self.shell().audit.record(&event);
    }
}

/// Whether no token of a campaign is good any more.
pub(super) fn is_void(stage: Stage) -> bool {
    match stage {
        Stage::Stopping(_) | Stage::Stopped(_) => true,
        Stage::Draft
        | Stage::AwaitingApproval
        | Stage::Scheduled
        | Stage::Running
        | Stage::Paused
        | Stage::Completed => false,
    }
}
