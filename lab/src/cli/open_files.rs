//! The limit of open files, which is one of connections too.

/// Raises the soft limit to the hard one: open-loop load on slow servers holds thousands of connections.
///
/// Where that is refused the limit stays as it was, and whoever reaches it says so.
pub(super) fn raise_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        let _ = setrlimit(Resource::Nofile, raised);
    }
}
