use serde::{Deserialize, Serialize};

use crate::json::{self, JsonError};

/// What a server is told to do from now on. What is absent stays as it is.
///
/// Its JSON form, in which every key is optional but one is needed:
///
/// ```json
/// {
///   "normal": true,
///   "speed": 0.25,
///   "mode": { "fail": { "status": 503, "retry_after_seconds": 5 } },
///   "ready": false,
///   "error_rate": 0.1,
///   "error_status": 400,
///   "reload_seconds": 30,
///   "loading": "hang",
///   "reset_counters": true
/// }
/// ```
///
/// `normal` is obeyed first, so that `{"normal": true, "speed": 0.5}` means "nothing but slow".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// `true`: back to speed 1, mode normal, ready, no errors, and loaded.
    pub normal: bool,
    /// A factor on the server's own speed, 0.001 to 1000: 0.25 makes it four times slower, for what it is working on too.
    pub speed: Option<f64>,
    /// What becomes of requests.
    pub mode: Option<Mode>,
    /// `false`: `/health` answers 503, requests are served all the same.
    pub ready: Option<bool>,
    /// The part of the requests, 0 to 1 and chosen at random, that fail at once.
    pub error_rate: Option<f64>,
    /// The HTTP status of these errors, 400 to 599; 500 unless it was told another.
    pub error_status: Option<u16>,
    /// Load the model anew: all jobs are lost, and for so many seconds (0 to 86400, of the server's time) none is accepted and `/health`
    /// says so, or as `loading` has it.
    pub reload_seconds: Option<f64>,
    /// What it answers while it loads.
    pub loading: Option<Loading>,
    /// `true`: counters and latency histograms start again from zero.
    pub reset_counters: bool,
}

/// What becomes of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Mode {
    /// They are served.
    #[default]
    Normal,
    /// They are accepted, nothing moves and nothing is answered, until the mode is another.
    Stop,
    /// Connections are reset, those of the requests at hand too.
    Drop,
    /// New ones fail at once.
    Fail {
        /// With this HTTP status, 400 to 599.
        #[serde(default = "service_unavailable")]
        status: u16,
        /// And with a `Retry-After` header of so many seconds (sent as it is, whatever the time scale).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_seconds: Option<u32>,
    },
}

/// What a server answers over HTTP while it loads its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Loading {
    /// `/health` and requests get a 503.
    #[default]
    Unavailable,
    /// `/health` answers 200, and `"loading"` in its body; requests get a 503.
    Says,
    /// Nothing is answered before the model is loaded, and then everything is.
    Hang,
}

pub(super) const fn service_unavailable() -> u16 {
    503
}

/// How a server is: what [`Control`] made of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// Whether a health check succeeds: ready, not stopped and not loading.
    pub healthy: bool,
    /// The factor on the server's own speed.
    pub speed: f64,
    /// What becomes of requests.
    pub mode: Mode,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// The part of the requests that fail.
    pub error_rate: f64,
    /// Seconds until the model is loaded; 0 once it is.
    pub loading_seconds: f64,
    /// What it answers until then.
    pub loading: Loading,
}

/// What a server answers to a health check, where it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthAnswer {
    /// 200, `{"status": "ready"}`.
    Ready,
    /// 200, `{"status": "loading"}`: a check of the status alone is deceived.
    Loading,
    /// 503.
    Unavailable,
}

impl HealthAnswer {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Ready | Self::Loading => 200,
            Self::Unavailable => 503,
        }
    }

    /// The value of `status` in its JSON body.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Loading => "loading",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Condition {
    /// Whether it answers nothing, not even health checks, until its model is loaded.
    pub fn hangs(&self) -> bool {
        self.loading == Loading::Hang && self.loading_seconds > 0.0
    }

    /// What it answers to a health check, if it neither hangs nor drops connections.
    pub fn health(&self) -> HealthAnswer {
        if self.healthy {
            HealthAnswer::Ready
        } else if self.loading_seconds > 0.0 && self.loading == Loading::Says {
            HealthAnswer::Loading
        } else {
            HealthAnswer::Unavailable
        }
    }

    /// Whether requests are served: it neither fails, hangs nor loads.
    pub fn serves(&self) -> bool {
        self.mode == Mode::Normal && self.loading_seconds <= 0.0
    }
}

/// A [`Control`] that cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Not such an object.
    #[error(transparent)]
    Syntax(#[from] JsonError),
    /// A value out of its range.
    #[error("{field}: {value} is not allowed, {allowed}")]
    Range {
        /// The JSON path of the field.
        field: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Nothing asked.
    #[error(
        "nothing asked for: give one or more of normal, speed, mode, ready, error_rate, error_status, reload_seconds, loading, reset_counters"
    )]
    Empty,
}

impl Control {
    /// Reads the JSON form and checks it.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn from_json(json: &[u8]) -> Result<Self, ControlError> {
        let control: Self = json::from_slice(json)?;
        if control == Self::default() {
            return Err(ControlError::Empty);
        }
        control.check()?;
        Ok(control)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn check(&self) -> Result<(), ControlError> {
        within("speed", self.speed, SPEEDS, "0.001 to 1000 is")?;
        within("error_rate", self.error_rate, 0.0..=1.0, "0 to 1 is")?;
        within(
            "reload_seconds",
            self.reload_seconds,
            0.0..=86_400.0,
            "0 to 86400 is",
        )?;
        let failing = match self.mode {
            Some(Mode::Fail { status, .. }) => Some(status),
            _ => None,
        };
        for (field, status) in [
            ("mode.fail.status", failing),
            ("error_status", self.error_status),
        ] {
            if let Some(status) = status.filter(|status| !ERRORS.contains(status)) {
                return Err(ControlError::Range {
                    field,
                    value: status.to_string(),
                    allowed: "400 to 599 is",
                });
            }
        }
        Ok(())
    }
}

/// The statuses that a server can be told to fail with.
const ERRORS: std::ops::RangeInclusive<u16> = 400..=599;

/// The speeds, and factors of speed, that a server can have.
pub(super) const SPEEDS: std::ops::RangeInclusive<f64> = 0.001..=1000.0;

fn within(
    field: &'static str,
    value: Option<f64>,
    range: std::ops::RangeInclusive<f64>,
    allowed: &'static str,
) -> Result<(), ControlError> {
    match value {
        Some(value) if !range.contains(&value) => Err(ControlError::Range {
            field,
            value: value.to_string(),
            allowed,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(json: &str) -> String {
        Control::from_json(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_every_field() {
        let control = Control::from_json(
            br#"{ "normal": true, "speed": 0.25, "mode": { "fail": { "status": 429, "retry_after_seconds": 5 } },
                  "ready": false, "error_rate": 0.1, "error_status": 400, "reload_seconds": 30, "loading": "hang",
                  "reset_counters": true }"#,
        )
        .unwrap();
        let expected = Control {
            normal: true,
            speed: Some(0.25),
            mode: Some(Mode::Fail {
                status: 429,
                retry_after_seconds: Some(5),
            }),
            ready: Some(false),
            error_rate: Some(0.1),
            error_status: Some(400),
            reload_seconds: Some(30.0),
            loading: Some(Loading::Hang),
            reset_counters: true,
        };
        assert_eq!(control, expected);
        let again = Control::from_json(&serde_json::to_vec(&expected).unwrap()).unwrap();
        assert_eq!(again, expected);
    }

    #[test]
    fn errors_name_the_field_the_value_and_what_is_allowed() {
        assert_eq!(
            error_of(r#"{"speed": 0}"#),
            "speed: 0 is not allowed, 0.001 to 1000 is"
        );
        assert_eq!(
            error_of(r#"{"error_rate": 1.5}"#),
            "error_rate: 1.5 is not allowed, 0 to 1 is"
        );
        assert_eq!(
            error_of(r#"{"mode": {"fail": {"status": 200}}}"#),
            "mode.fail.status: 200 is not allowed, 400 to 599 is"
        );
        assert_eq!(
            error_of(r#"{"error_status": 301}"#),
            "error_status: 301 is not allowed, 400 to 599 is"
        );
        assert_eq!(
            error_of(r#"{"reload_seconds": -1}"#),
            "reload_seconds: -1 is not allowed, 0 to 86400 is"
        );
        assert!(error_of(r#"{"speed": "slow"}"#).starts_with("speed: invalid type: string"));
        assert!(error_of(r#"{"sped": 1}"#).contains("unknown field `sped`"));
        assert!(error_of(r#"{"mode": "halt"}"#).starts_with("mode: unknown variant `halt`"));
        assert!(
            error_of(r#"{"mode": {"fail": {"code": 503}}}"#).starts_with("mode.fail.code: unknown")
        );
        assert!(error_of("{}").starts_with("nothing asked for"));
        assert!(error_of(r#"{"ready": true} x"#).contains("trailing characters"));
    }
}
