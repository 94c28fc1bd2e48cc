//! How many members pools may have, and weights that nothing heeds.

use super::error::Problems;
use super::policy::PolicyConfig;
use super::reader::{Node, Object, Path};

/// The most upstreams, or listed endpoints, of one pool: as many as are kept of
/// what is discovered. A pick compares all of them.
pub(super) const MAX_IN_POOL: usize = 1024;

/// The most in all pools together. Each request copies some 180 bytes for each of
/// them over the VM's boundary: 11 us more at 1000 than at 64
/// (`docs/benchmarks.md`), so some 50 us at 4096, as much as all else that Envoy
/// does for a request.
pub(super) const MAX_IN_ALL: usize = 4096;

/// Refuses a list of so many upstreams or endpoints that a pool has no room for.
#[inline(never)]
pub(super) fn refuse_too_many(node: &Node<'_>, count: usize, problems: &mut Problems) {
    if count > MAX_IN_POOL {
        problems.add(
            &node.path,
            &format_args!("{count} are too many; give a pool at most {MAX_IN_POOL}"),
        );
    }
}

/// Refuses pools that have so many members together.
pub(super) fn refuse_too_many_in_all(count: usize, path: &Path<'_>, problems: &mut Problems) {
    if count > MAX_IN_ALL {
        problems.add(path, &format_args!(
            "{count} upstreams in all are too many; give all pools together at most {MAX_IN_ALL}"
        ));
    }
}

/// Refuses weights that differ where the policy does not look at them: those of
/// the members that are listed in `object` under `key`. Equal ones mean the same
/// under every policy.
pub(super) fn refuse_unheeded_weights(
    policy: &PolicyConfig,
    weights: &[u32],
    (object, key): (&Object<'_>, &str),
    problems: &mut Problems,
) {
    if policy.heeds_weights() {
        return;
    }
    let Some((index, weight)) = weights.iter().enumerate().find(|(_, weight)| **weight > 1) else {
        return;
    };
    // Zero is no share.
    if weights.iter().all(|other| other == weight || *other == 0) {
        return;
    }
    let members = Path::Key(&object.path, key);
    problems.add(
        &Path::Key(&Path::Index(&members, index), "weight"),
        &format_args!(
            "{weight} has no effect, because {} ignores weights; leave it out or choose another \
         policy, such as weighted_round_robin",
            policy.name()
        ),
    );
}
