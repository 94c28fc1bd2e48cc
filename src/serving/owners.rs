//! Which upstream an address belongs to.
//!
//! An upstream *claims* an address that answers a request picked for it at the
//! first attempt. While all servers are healthy, each claims its own address. If one
//! becomes unhealthy, an address that another upstream has claimed answers its
//! requests: that other upstream has served them. This is certain only if the picked
//! upstream has been seen at an address of its own. Otherwise both claim the
//! address, like upstreams behind one proxy, and both claims count.
//!
//! Addresses move between servers, so a claim lapses if it is not renewed while
//! others are. If an endpoint's metadata names the upstream, it overrides any
//! claim.

use crate::map::Map;
use crate::pool::identity;

/// The most addresses that are remembered; beyond, all are learned anew.
const CAPACITY: usize = 4096;
/// A claim lapses when its upstream has answered so often elsewhere, for each
/// address that it has: with equal shares one in 3,000 lapses wrongly.
const PATIENCE: u32 = 8;
/// Or when all upstreams have answered so often, for each address there is:
/// its upstream may be gone, and answer nowhere.
const PATIENCE_OF_ALL: u32 = 64;
/// What both have at the least, in answers for one address.
const LEAST: u32 = 16;

/// Whose the addresses are that have answered.
#[derive(Debug, Default)]
pub struct Owners {
    /// The places of addresses, by a hash of theirs, and of upstreams.
    places: Map<u64, usize>,
    addresses: Vec<Vec<Claim>>,
    upstreams: Vec<Upstream>,
    /// Answers that renewed a claim.
    answers: u32,
}

/// An upstream takes an address for its own.
#[derive(Clone, Copy, Debug)]
struct Claim {
    upstream: u64,
    /// The upstream's answers when it was last renewed, and all answers.
    at: u32,
    at_all: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Upstream {
    /// Answers that renewed one of its claims.
    answers: u32,
    /// Claims that it has.
    claims: u32,
}

/// Whose server gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The picked upstream's, as far as is known.
    Picked,
    /// That of the upstream with this identity.
    Other(u64),
    /// Not the picked one's, and nobody knows whose.
    Unknown,
}

impl Owners {
    /// A request that was picked for `upstream`, an identity, is answered from
    /// this address. Whether that is one of the upstream's own.
    pub fn confirm(&mut self, address: &str, upstream: u64) -> bool {
        let (Some(place), Some(known)) = (self.place_of(address), self.known(upstream)) else {
            return false;
        };
        let all = self.all();
        let Owners {
            addresses,
            upstreams,
            answers,
            ..
        } = self;
        let (Some(claims), Some(known)) = (addresses.get_mut(place), upstreams.get_mut(known))
        else {
            return false;
        };
        let is_shared = claims.len() > 1;
        let Some(claim) = claims.iter_mut().find(|it| it.upstream == upstream) else {
            return false;
        };
        if is_shared && claim.has_lapsed(*known, all) {
            return false;
        }
        known.answers = known.answers.wrapping_add(1);
        *answers = answers.wrapping_add(1);
        (claim.at, claim.at_all) = (known.answers, *answers);
        true
    }

    /// Whether an upstream other than this one claims the address.
    #[must_use]
    pub fn is_claimed_by_others(&self, address: &str, upstream: u64) -> bool {
        let mut claims = self.claims(address).iter();
        claims.any(|it| it.upstream != upstream)
    }

    /// The only upstream that claims the address, if one does.
    #[must_use]
    pub fn sole(&self, address: &str) -> Option<u64> {
        match self.claims(address) {
            [sole] => Some(sole.upstream),
            _ => None,
        }
    }

    /// The endpoint's metadata says which upstream the address belongs to.
    pub fn declare(&mut self, address: &str, upstream: u64) {
        self.drop_claims(address, None);
        self.claim(address, upstream);
    }

    /// Whose server answered a request that was picked for `upstream`, where that
    /// has no claim to the address and the endpoint's metadata says nothing. At
    /// the first try it may make one.
    pub fn attribute(&mut self, address: &str, upstream: u64, is_first_try: bool) -> Owner {
        let all = self.all();
        self.drop_claims(address, Some(all));
        match self.claims(address) {
            [sole] if !is_first_try || self.has_its_own(upstream) => Owner::Other(sole.upstream),
            _ if is_first_try => {
                self.claim(address, upstream);
                Owner::Picked
            }
            _ => Owner::Unknown,
        }
    }

    /// Forgets whose the addresses are.
    pub fn forget(&mut self) {
        *self = Owners::default();
    }

    /// How many addresses are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    #[inline(never)]
    fn place_of(&self, address: &str) -> Option<usize> {
        self.places.get(&identity(&[address])).copied()
    }

    #[inline(never)]
    fn known(&self, upstream: u64) -> Option<usize> {
        self.places.get(&upstream).copied()
    }

    fn claims(&self, address: &str) -> &[Claim] {
        let place = self.place_of(address);
        place
            .and_then(|place| self.addresses.get(place))
            .map_or(&[], Vec::as_slice)
    }

    /// Answers so far, and upstreams that have given them.
    fn all(&self) -> (u32, u32) {
        (self.answers, self.upstreams.len() as u32)
    }

    /// Whether an address is known that this upstream alone claims.
    fn has_its_own(&self, upstream: u64) -> bool {
        let mut claims = self.addresses.iter();
        claims.any(|claims| matches!(claims.as_slice(), [sole] if sole.upstream == upstream))
    }

    #[inline(never)]
    fn claim(&mut self, address: &str, upstream: u64) {
        if self.addresses.len() >= CAPACITY {
            self.forget();
        }
        let place = self.place_of(address).unwrap_or_else(|| {
            let place = self.addresses.len();
            self.places.insert(identity(&[address]), place);
            self.addresses.push(Vec::new());
            place
        });
        let known = self.known(upstream).unwrap_or_else(|| {
            let place = self.upstreams.len();
            self.places.insert(upstream, place);
            self.upstreams.push(Upstream::default());
            place
        });
        self.answers = self.answers.wrapping_add(1);
        if let Some(known) = self.upstreams.get_mut(known)
            && let Some(claims) = self.addresses.get_mut(place)
        {
            known.answers = known.answers.wrapping_add(1);
            known.claims += 1;
            claims.push(Claim {
                upstream,
                at: known.answers,
                at_all: self.answers,
            });
        }
    }

    /// Drops the claims to an address, or those that have lapsed by then.
    #[inline(never)]
    fn drop_claims(&mut self, address: &str, all: Option<(u32, u32)>) {
        let Some(claims) = self
            .place_of(address)
            .and_then(|it| self.addresses.get_mut(it))
        else {
            return;
        };
        claims.retain(|claim| {
            let known = self.places.get(&claim.upstream);
            let Some(known) = known.and_then(|it| self.upstreams.get_mut(*it)) else {
                return false;
            };
            let is_void = all.is_none_or(|all| claim.has_lapsed(*known, all));
            known.claims = known.claims.saturating_sub(u32::from(is_void));
            !is_void
        });
    }
}

impl Claim {
    /// Whether it was not renewed for long, by an upstream that is known so, while
    /// all answers and upstreams are so many.
    fn has_lapsed(&self, known: Upstream, (answers, upstreams): (u32, u32)) -> bool {
        let elsewhere = known.answers.wrapping_sub(self.at);
        let of_all = answers.wrapping_sub(self.at_all);
        let patience = PATIENCE.saturating_mul(known.claims).saturating_add(LEAST);
        let for_all = PATIENCE_OF_ALL.saturating_mul(upstreams.saturating_add(LEAST));
        elsewhere > patience || of_all > for_all
    }
}
