//! What holds for any input, and for any valid configuration.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use super::*;
use crate::estimate::Basis;

/// JSON that often resembles a configuration, for only such JSON gets far.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_i32..3).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "(10|1\\.5|0)?(ms|s|h|x)?".prop_map(Value::from),
        "(peak_ewma|least_request|random|a|/v1|\\*\\.a)".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let key = prop_oneof![
            "(upstreams|pools|policy|match|lease|explain|route_header)",
            "(name|cluster|weight|path_prefix|host|headers|exact|prefix|present)",
            "(choice_count|decay_time|externality|request_size|json_pointer|request_body|model)",
            ".{0,8}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9|._:/=-]([a-zA-Z0-9|._:/ -]{0,20}[a-zA-Z0-9])?"
}

/// Whole milliseconds, as a number and a unit that need not be the largest.
fn duration(millis: core::ops::Range<u64>) -> impl Strategy<Value = (Value, Duration)> {
    (millis, 0..3).prop_map(|(millis, form)| {
        let text = match form {
            0 => format!("{millis}ms"),
            1 => format!("{}us", millis * 1000),
            _ => format!("{}.{:03}s", millis / 1000, millis % 1000),
        };
        (Value::from(text), Duration::from_millis(millis))
    })
}

/// A number as a person writes it, or as the double that Istio makes of it.
fn whole(range: core::ops::Range<u32>) -> impl Strategy<Value = (Value, u32)> {
    (range, any::<bool>()).prop_map(|(number, double)| {
        let json = match double {
            true => Value::from(f64::from(number)),
            false => Value::from(number),
        };
        (json, number)
    })
}

/// A number that is the same in binary and in decimal: `serde_json` reads
/// others up to one unit in the last place off.
fn real(sixteenths: core::ops::Range<u32>) -> impl Strategy<Value = f64> {
    sixteenths.prop_map(|count| f64::from(count) / 16.0)
}

fn policy() -> impl Strategy<Value = (Value, PolicyConfig)> {
    let bases = prop_oneof![
        Just(("learned", None)),
        Just(("requests", Some(Basis::Requests))),
        Just(("work", Some(Basis::Work))),
    ];
    prop_oneof![
        Just((json!("round_robin"), PolicyConfig::RoundRobin)),
        Just((
            json!({"name": "weighted_round_robin"}),
            PolicyConfig::WeightedRoundRobin
        )),
        Just((json!("random"), PolicyConfig::Random)),
        (whole(2..101), real(0..161)).prop_map(|((count_json, count), bias)| {
            let json = json!({
                "name": "least_request",
                "choice_count": count_json,
                "active_request_bias": bias,
            });
            let policy = PolicyConfig::LeastRequest {
                choice_count: Some(count),
                active_request_bias: bias,
            };
            (json, policy)
        }),
        duration(100..3_600_001).prop_map(|(json, decay_time)| {
            let json = json!({"name": "least_response_time", "decay_time": json});
            (json, PolicyConfig::LeastResponseTime { decay_time })
        }),
        (
            duration(100..3_600_001),
            duration(1..600_001),
            whole(2..101)
        )
            .prop_map(
                |(
                    (decay_json, decay_time),
                    (rtt_json, default_rtt),
                    (count_json, choice_count),
                )| {
                    let json = json!({
                        "name": "peak_ewma",
                        "decay_time": decay_json,
                        "default_rtt": rtt_json,
                        "choice_count": count_json,
                    });
                    let policy = PolicyConfig::PeakEwma {
                        decay_time,
                        default_rtt,
                        choice_count,
                    };
                    (json, policy)
                }
            ),
        (real(8..16), whole(1..100_001), real(0..4)).prop_map(
            |(q, (samples_json, min_samples), exploration)| {
                let json = json!({
                    "name": "latency_percentile",
                    "q": q,
                    "min_samples": samples_json,
                    "exploration": exploration,
                });
                let policy = PolicyConfig::LatencyPercentile {
                    q,
                    min_samples,
                    exploration,
                };
                (json, policy)
            }
        ),
        (real(0..17), real(0..4), bases).prop_map(|(externality, exploration, (basis, given))| {
            let json = json!({
                "name": "shortest_expected_delay",
                "externality": externality,
                "exploration": exploration,
                "basis": basis,
            });
            let policy = PolicyConfig::ShortestExpectedDelay {
                externality,
                exploration,
                basis: given,
            };
            (json, policy)
        }),
    ]
}

fn header() -> impl Strategy<Value = (String, Value, HeaderMatch)> {
    let condition = prop_oneof![
        "[a-z]{0,5}".prop_map(|text| (json!(text), ValueMatch::Exact(text))),
        "[a-zé]{0,5}".prop_map(|text| (json!({"exact": text}), ValueMatch::Exact(text))),
        "[a-z]{1,5} ?".prop_map(|text| (json!({"prefix": text}), ValueMatch::Prefix(text))),
        Just((json!({"present": true}), ValueMatch::Present)),
    ];
    ("[a-z][a-z0-9-]{4,9}", condition).prop_map(|(name, (json, value))| {
        let read = HeaderMatch {
            name: name.clone(),
            value,
        };
        (name.to_ascii_uppercase(), json, read)
    })
}

fn conditions() -> impl Strategy<Value = (Value, Match)> {
    let host = prop_oneof![
        "[a-z]{1,5}\\.com".prop_map(|host| (json!(host), HostMatch::Exact(host))),
        "[a-z]{1,5}\\.com".prop_map(|host| (
            json!(format!("*.{host}")),
            HostMatch::Suffix(format!(".{host}"))
        )),
    ];
    let model = prop_oneof![
        "[a-z]{1,5}".prop_map(|name| (json!(name), ModelMatch::AnyOf(vec![name]))),
        "[a-z]{1,5}".prop_map(|name| (json!({"exact": name}), ModelMatch::AnyOf(vec![name]))),
        "[a-z]{1,5}".prop_map(|name| (json!({"prefix": name}), ModelMatch::Prefix(name))),
        prop::collection::btree_set("[a-z]{1,5}", 1..4).prop_map(|names| {
            let names: Vec<String> = names.into_iter().collect();
            (json!(names), ModelMatch::AnyOf(names))
        }),
    ];
    let headers = prop::collection::btree_map("[a-z]", header(), 0..3);
    (
        prop::option::of("/[a-z/]{0,9}"),
        prop::option::of(host),
        headers,
        prop::option::of(model),
    )
        .prop_map(|(path_prefix, host, headers, model)| {
            let mut json = serde_json::Map::new();
            let mut read = Match::default();
            if let Some(prefix) = path_prefix {
                json.insert("path_prefix".to_owned(), json!(prefix));
                read.path_prefix = Some(prefix);
            }
            if let Some((host_json, host)) = host {
                json.insert("host".to_owned(), host_json);
                read.host = Some(host);
            }
            if let Some((model_json, model)) = model {
                json.insert("model".to_owned(), model_json);
                read.model = Some(model);
            }
            let mut header_json = serde_json::Map::new();
            for (unique, (name, condition, mut header)) in headers {
                header_json.insert(format!("{unique}{name}"), condition);
                header.name.insert_str(0, &unique);
                read.headers.push(header);
            }
            // serde_json writes an object's keys in byte order; so they are read.
            json.insert("headers".to_owned(), Value::Object(header_json));
            (Value::Object(json), read)
        })
}

fn request_size() -> impl Strategy<Value = (Value, SizeSource)> {
    prop_oneof![
        Just((json!("content_length"), SizeSource::ContentLength)),
        Just((json!("openai"), SizeSource::OpenAi)),
        "x-[a-z]{1,5}".prop_map(|name| (json!({"header": name}), SizeSource::Header(name))),
        "(/[a-z]{0,3}){0,3}".prop_map(|text| {
            let pointer = JsonPointer::parse(&text).unwrap();
            (
                json!({"json_pointer": text}),
                SizeSource::JsonPointer(pointer),
            )
        }),
    ]
}

fn latency() -> impl Strategy<Value = (Value, LatencyConfig)> {
    let signal = prop_oneof![
        Just(("complete", LatencySignal::Complete)),
        Just(("first_byte", LatencySignal::FirstByte)),
    ];
    (signal, duration(1000..3_600_001)).prop_map(|((name, signal), (json, window))| {
        let json = json!({"signal": name, "window": json});
        (json, LatencyConfig { signal, window })
    })
}

fn pool() -> impl Strategy<Value = (Value, Pool)> {
    let upstreams = prop::collection::btree_map(name(), whole(1..1001), 1..6);
    let sized = (policy(), request_size(), latency());
    (name(), conditions(), sized, upstreams).prop_map(
        |(name, (match_json, matcher), (policy, request_size, latency), mut upstreams)| {
            let ((policy_json, policy), (latency_json, latency)) = (policy, latency);
            if !policy.heeds_weights() {
                upstreams
                    .values_mut()
                    .for_each(|weight| *weight = (json!(2), 2));
            }
            let upstream_json: Vec<_> = upstreams
                .iter()
                .map(|(cluster, (weight, _))| json!({"cluster": cluster, "weight": weight}))
                .collect();
            let mut json = json!({
                "name": name,
                "match": match_json,
                "policy": policy_json,
                "latency": latency_json,
                "upstreams": upstream_json,
            });
            let mut size = SizeSource::default();
            if policy.heeds_size() {
                json["request_size"] = request_size.0;
                size = request_size.1;
            }
            let upstreams = upstreams
                .into_iter()
                .map(|(cluster, (_, weight))| Upstream {
                    cluster,
                    weight,
                    accepts: Accepts::ALL,
                    max_in_flight: MaxInFlight::Unlimited,
                    placement: None,
                })
                .collect();
            let read = Pool {
                name,
                matcher,
                upstreams,
                endpoints: None,
                mode: Mode::default(),
                policy,
                request_size: size,
                reserve: None,
                health_check: None,
                max_in_flight: MaxInFlight::Unlimited,
                admission: Admission::default(),
                latency,
                outlier_detection: Some(OutlierDetection::default()),
                slow_start: None,
            };
            (json, read)
        },
    )
}

fn config() -> impl Strategy<Value = (Value, Config)> {
    let pools = prop::collection::vec(pool(), 1..4);
    (
        "x-[a-z]{1,9}-route",
        any::<bool>(),
        duration(1000..300_001),
        pools,
    )
        .prop_map(|(route_header, explain, (lease_json, lease), pools)| {
            let (pool_json, mut pools): (Vec<_>, Vec<_>) = pools.into_iter().unzip();
            let mut pool_json: Vec<Value> = pool_json;
            // Distinct names, and paths that do not cover each other.
            for (index, (json, pool)) in pool_json.iter_mut().zip(&mut pools).enumerate() {
                let own_name = format!("{index}{}", pool.name);
                let own_prefix = format!("/{index}");
                json["name"] = json!(own_name);
                json["match"]["path_prefix"] = json!(own_prefix);
                pool.name = own_name;
                pool.matcher.path_prefix = Some(own_prefix);
            }
            let mut json = json!({
                "route_header": route_header,
                "explain": explain,
                "lease": lease_json,
                "pools": pool_json,
            });
            let mut read = Config {
                route_header,
                endpoint_header: "x-gateway-destination-endpoint".to_owned(),
                explain,
                access_log: false,
                include_attempt_count_in_response: false,
                status: None,
                lease,
                model: ModelSource::default(),
                request_body: BodyLimits::default(),
                devices: Vec::new(),
                pools,
            };
            if read.matches_models() && explain {
                json["model"] = json!({"header": "x-model"});
                read.model = ModelSource::Header("x-model".to_owned());
            }
            if read.reads_bodies() {
                json["request_body"] = json!({"max_bytes": 2048.0, "timeout": "1s"});
                read.request_body = BodyLimits {
                    max_bytes: 2048,
                    timeout: Duration::from_secs(1),
                };
            }
            (json, read)
        })
}

/// The same cases in every run; `PROPTEST_CASES` sets how many.
fn repeatable() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(repeatable())]

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        let _ = Config::parse(Some(&bytes)).map_err(|error| error.to_string());
    }

    #[test]
    fn any_text_is_answered(text in "[\\[\\]{}:,\"\\\\a-e0-9. -]{0,64}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_json_is_answered(json in any_json()) {
        let _ = parse(&json.to_string());
    }

    #[test]
    fn a_cut_configuration_is_a_syntax_error((json, _) in config(), at in 0.0_f64..1.0) {
        let text = json.to_string();
        let at = 1 + ((text.len() - 2) as f64 * at) as usize;
        let bytes = text.as_bytes();
        let error = Config::parse(bytes.get(..at)).unwrap_err();
        prop_assert!(!matches!(error, ConfigError::Invalid(_)), "{}", error);
    }

    #[test]
    fn a_valid_configuration_is_read_as_written((json, expected) in config()) {
        prop_assert_eq!(parse(&json.to_string()), Ok(expected.clone()));
        prop_assert_eq!(parse(&format!("{json:#}")), Ok(expected));
    }

    #[test]
    fn a_value_of_another_type_is_refused_at_its_place((json, _) in config()) {
        let mut json = json;
        json["pools"][0]["upstreams"][0]["cluster"] = json!(7);
        let said = refused(&json.to_string());
        prop_assert!(
            said.starts_with("pools[0].upstreams[0].cluster: 7 is not allowed; "),
            "{}", said
        );
    }
}
