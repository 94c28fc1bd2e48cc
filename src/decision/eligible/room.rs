//! An upstream that has all it can take gets the next request when one has ended.

use super::patience::wait_for_faster;
use super::{Request, Rule, some_are_left};
use crate::decision::pass_through::PassThrough;
use crate::policy::Place;

/// Leaves the candidates that have room for the request: fewer requests in flight
/// than they may have, and the memory that it takes.
///
/// Others may have taken the room since it was looked at; the reservation of the
/// candidate that is picked is exact.
pub(super) struct Room;

impl Rule for Room {
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough> {
        // What it needs of which device, where it needs memory.
        let memory = |place: &Place| {
            let (device, memory) = request.member(*place)?.memory?;
            Some((request.devices.get(device.0)?, memory.of(request.size)))
        };
        candidates.retain(|it| memory(it).is_none_or(|(device, needed)| needed <= device.memory));
        some_are_left(candidates, PassThrough::TooLarge)?;
        let mut full = Vec::new();
        candidates.retain(|place| {
            let most = request.member(*place);
            let most = most.and_then(|member| member.most_in_flight(request.learned));
            let in_flight = request.members.get(*place);
            let in_flight = in_flight.map_or(0, |it| it.outstanding.requests());
            if most.is_some_and(|most| in_flight >= most) {
                full.push(*place);
                return false;
            }
            memory(place).is_none_or(|(device, needed)| needed <= device.free)
        });
        wait_for_faster(request, &full, candidates);
        some_are_left(candidates, PassThrough::NoRoom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{self, candidates, topology};
    use super::*;

    /// Who may take a request of this size, where the device has 50 of 100 bytes left.
    fn left(json: &str, in_flight: &[u64], size: f64) -> Result<Vec<usize>, PassThrough> {
        let topology = topology(json);
        let all = candidates(in_flight);
        test_support::left(&Room, &topology.members, Some(size), &all)
    }

    #[test]
    fn what_is_full_is_left_out() {
        let json = r#"{"upstreams": [{"cluster": "a", "max_in_flight": 2}, {"cluster": "b"},
            {"cluster": "c", "max_in_flight": 1}]}"#;
        assert_eq!(left(json, &[1, 9, 0], 1.0), Ok(vec![0, 1, 2]));
        assert_eq!(left(json, &[2, 9, 1], 1.0), Ok(vec![1]));
        let json = json.replace(r#"{"cluster": "b"},"#, "");
        assert_eq!(left(&json, &[2, 1], 1.0), Err(PassThrough::NoRoom));
    }

    #[test]
    fn a_request_goes_where_its_memory_is() {
        let json = r#"{"upstreams": [
                {"cluster": "a", "device": "gpu", "memory": {"base": 10, "per_size": 1}},
                {"cluster": "b", "device": "gpu", "memory": {"base": 10, "per_size": 8}}],
            "devices": [{"name": "gpu", "memory": 100}]}"#;
        assert_eq!(left(json, &[0, 0], 5.0), Ok(vec![0, 1]));
        assert_eq!(left(json, &[0, 0], 5.5), Ok(vec![0]));
        assert_eq!(left(json, &[0, 0], 40.0), Ok(vec![0]));
        assert_eq!(left(json, &[0, 0], 41.0), Err(PassThrough::NoRoom));
        assert_eq!(left(json, &[0, 0], 90.0), Err(PassThrough::NoRoom));
        assert_eq!(left(json, &[0, 0], 91.0), Err(PassThrough::TooLarge));
    }
}
