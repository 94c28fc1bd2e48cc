use std::path::Path;

use super::*;

const MANY: usize = 200_000;

fn drawn(shape: Shape) -> Vec<Request> {
    Workload::of_shape(shape)
        .requests(MANY, Some(10.0), 7)
        .unwrap()
}

fn prompts(requests: &[Request]) -> Vec<f64> {
    requests
        .iter()
        .map(|request| f64::from(request.prompt_tokens.get()))
        .collect()
}

fn outputs(requests: &[Request]) -> Vec<f64> {
    requests
        .iter()
        .map(|request| f64::from(request.output_tokens.get()))
        .collect()
}

fn services(requests: &[Request]) -> Vec<f64> {
    requests
        .iter()
        .map(|request| request.service.unwrap().as_secs_f64())
        .collect()
}

fn gaps(requests: &[Request]) -> Vec<f64> {
    requests
        .windows(2)
        .map(|pair| (pair[1].arrival - pair[0].arrival).as_secs_f64())
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn cv(values: &[f64]) -> f64 {
    let mean = mean(values);
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / values.len() as f64;
    variance.sqrt() / mean
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let covariance = a
        .iter()
        .zip(b)
        .map(|(a, b)| (a - mean_a) * (b - mean_b))
        .sum::<f64>()
        / a.len() as f64;
    covariance / (mean_a * cv(a) * mean_b * cv(b))
}

#[track_caller]
fn near(what: &str, measured: f64, published: f64, within: f64) {
    assert!(
        (measured / published - 1.0).abs() <= within,
        "{what}: {measured} instead of {published} within {within}"
    );
}

// With 200,000 draws the standard error of a mean is below 0.7 % and that of a
// p99 below 1.1 % for the widest of these distributions (sigma 1.32). The seed
// is fixed; with another one each bound holds at odds of well over 99 %.

#[test]
fn a_conversation_has_its_published_figures() {
    let requests = drawn(Shape::Conversation);
    let (prompts, outputs) = (prompts(&requests), outputs(&requests));
    near("prompt mean", mean(&prompts), 1155.0, 0.02);
    near("prompt p99", quantile(&prompts, 0.99), 4142.0, 0.03);
    near("output mean", mean(&outputs), 211.0, 0.02);
    near("output p99", quantile(&outputs, 0.99), 601.0, 0.03);
    assert!((correlation(&prompts, &outputs) + 0.11).abs() < 0.01);
    near("arrival cv", cv(&gaps(&requests)), 1.0, 0.02);
    near("mean gap", mean(&gaps(&requests)), 0.1, 0.02);
}

#[test]
fn code_completion_has_its_published_figures() {
    let requests = drawn(Shape::CodeCompletion);
    let (prompts, outputs) = (prompts(&requests), outputs(&requests));
    near("prompt mean", mean(&prompts), 2048.0, 0.02);
    near("prompt p99", quantile(&prompts, 0.99), 7436.0, 0.03);
    near("output mean", mean(&outputs), 28.0, 0.03);
    near("output p99", quantile(&outputs, 0.99), 252.0, 0.04);
    near("mean gap", mean(&gaps(&requests)), 0.1, 1e-6);
}

#[test]
fn long_context_has_its_published_figures() {
    let requests = drawn(Shape::LongContext);
    let (prompts, outputs) = (prompts(&requests), outputs(&requests));
    // The cut at the context window takes 2 % off the mean.
    near("prompt mean", mean(&prompts), 12_000.0, 0.04);
    near("prompt p99", quantile(&prompts, 0.99), 85_000.0, 0.03);
    near("output mean", mean(&outputs), 343.0, 0.02);
    assert!(prompts.iter().all(|&tokens| tokens <= 131_072.0));
}

#[test]
fn diffusion_has_its_published_figures() {
    let services = services(&drawn(Shape::Diffusion));
    near("mean", mean(&services), 28.7, 0.02);
    near("p50", quantile(&services, 0.5), 23.0, 0.02);
    near("p90", quantile(&services, 0.9), 53.0, 0.02);
    near("p99", quantile(&services, 0.99), 106.0, 0.03);
    near("cv", cv(&services), 0.73, 0.03);
    assert!(services.iter().all(|&seconds| seconds <= 567.0));
}

/// The fitted conversation has the figures of the trace that they were published from.
#[test]
#[ignore = "needs AzureLLMInferenceTrace_conv.csv: set PACELINE_TRACE to its path"]
fn the_trace_of_a_conversation_has_the_published_figures() {
    let path = std::env::var_os("PACELINE_TRACE").expect("PACELINE_TRACE is the path of the trace");
    let trace = Trace::open(Path::new(&path)).unwrap();
    let (prompts, outputs) = (prompts(trace.rows()), outputs(trace.rows()));
    near("prompt mean", mean(&prompts), 1155.0, 0.001);
    near("output mean", mean(&outputs), 211.0, 0.001);
    near("prompt p99", quantile(&prompts, 0.99), 4142.0, 0.001);
    near("output p99", quantile(&outputs, 0.99), 601.0, 0.001);
    assert_eq!(trace.out_of_order(), 0);
}

#[test]
fn bursts_have_the_asked_coefficient_of_variation() {
    // A burst of coefficient 4 lasts some 16 requests, so there are 12,000 of them here.
    let arrivals = Arrivals::Bursty { cv: 4.0 };
    let workload = Workload::of_shape(Shape::Conversation)
        .arriving(arrivals)
        .unwrap();
    let requests = workload.requests(MANY, Some(10.0), 3).unwrap();
    near("cv", cv(&gaps(&requests)), 4.0, 0.05);
    near("mean gap", mean(&gaps(&requests)), 0.1, 1e-6);
    // Of coefficient 13 a burst is ten times as long, and estimates are as much coarser.
    near("cv", cv(&gaps(&drawn(Shape::CodeCompletion))), 13.0, 0.15);
}

#[test]
fn a_seed_gives_the_same_requests_and_another_seed_others() {
    for shape in Shape::ALL {
        let workload = Workload::of_shape(shape);
        let one = workload.requests(100, Some(5.0), 1).unwrap();
        assert_eq!(
            one,
            workload.requests(100, Some(5.0), 1).unwrap(),
            "{shape}"
        );
        assert_ne!(
            one,
            workload.requests(100, Some(5.0), 2).unwrap(),
            "{shape}"
        );
    }
}

/// Guards against a changed generator: recorded results would no longer be of the same requests.
#[test]
fn the_first_requests_of_seed_1_are_what_they_were() {
    let requests = Workload::of_shape(Shape::Conversation)
        .requests(3, Some(10.0), 1)
        .unwrap();
    let tokens: Vec<_> = requests
        .iter()
        .map(|request| {
            (
                request.arrival.as_millis(),
                request.prompt_tokens.get(),
                request.output_tokens.get(),
            )
        })
        .collect();
    assert_eq!(tokens, [(81, 197, 197), (180, 573, 454), (210, 904, 275)]);
}

#[test]
fn another_rate_leaves_the_sizes() {
    let workload = Workload::of_shape(Shape::Conversation);
    let slow = workload.requests(500, Some(1.0), 1).unwrap();
    let fast = workload.requests(500, Some(50.0), 1).unwrap();
    assert_eq!(prompts(&slow), prompts(&fast));
    let ratio = slow[499].arrival.as_secs_f64() / fast[499].arrival.as_secs_f64();
    assert!((ratio - 50.0).abs() < 1e-3, "{ratio}");
}

const SMALL: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
    2023-11-16 18:15:46.6805900,374,44\r\n\
    \"2023-11-16 18:15:50.6805900\",396,0\r\n\r\n\
    2023-11-16 18:15:48.6805900,879,55\r\n";

fn trace(text: &str) -> Result<Trace, TraceError> {
    Trace::read("own.csv", text.as_bytes())
}

#[test]
fn a_trace_is_read_whole_and_sorted() {
    let trace = trace(SMALL).unwrap();
    assert_eq!(prompts(trace.rows()), [374.0, 879.0, 396.0]);
    assert_eq!(outputs(trace.rows()), [44.0, 55.0, 1.0]);
    assert_eq!(trace.rows()[2].arrival, Duration::from_secs(4));
    assert_eq!(trace.out_of_order(), 1);
}

#[test]
fn times_may_have_an_offset_and_a_byte_order_mark_may_come_first() {
    let text = "\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2024-05-10 00:00:00.009930+00:00,1,2\n2024-05-10T02:00:01.009930+02:00,3,4\n";
    let trace = trace(text).unwrap();
    assert_eq!(trace.rows()[1].arrival, Duration::from_secs(1));
}

#[test]
fn errors_of_a_trace_name_line_value_and_what_is_allowed() {
    let with = |row: &str| trace(&format!("{SMALL}{row}")).unwrap_err().to_string();
    assert_eq!(
        with("2023-11-16 18:16:00,-1,5"),
        "own.csv:6: ContextTokens is \"-1\", allowed is a whole number, 0 to 10000000"
    );
    assert_eq!(
        with("2023-11-16 18:16:00,1,5000000000"),
        "own.csv:6: GeneratedTokens is \"5000000000\", allowed is a whole number, 0 to 10000000"
    );
    assert!(
        with("yesterday,1,5")
            .starts_with("own.csv:6: TIMESTAMP is \"yesterday\", allowed is a time such as 2023"),
    );
    assert_eq!(
        with("2023-11-16 18:16:00,1"),
        "own.csv:6: 2 fields, allowed are 3"
    );
    assert_eq!(
        trace("when,in,out\n").unwrap_err().to_string(),
        "own.csv:1: the header is \"when,in,out\", allowed is \"TIMESTAMP,ContextTokens,GeneratedTokens\""
    );
    assert!(
        trace("")
            .unwrap_err()
            .to_string()
            .starts_with("own.csv:1: the header is \"\"")
    );
    assert_eq!(
        trace("TIMESTAMP,ContextTokens,GeneratedTokens\n")
            .unwrap_err()
            .to_string(),
        "own.csv: no row follows the header, at least one is needed"
    );
    let absent = Trace::open(Path::new("no/such.csv"))
        .unwrap_err()
        .to_string();
    assert!(absent.starts_with("no/such.csv: "), "{absent}");
}

#[test]
fn a_trace_is_rescaled_to_the_wanted_rate() {
    let workload = Workload::of_trace(Arc::new(trace(SMALL).unwrap()));
    let own_pace = workload.requests(3, None, 1).unwrap();
    assert_eq!(own_pace[2].arrival, Duration::from_secs(4));
    let rescaled = workload.requests(3, Some(10.0), 1).unwrap();
    assert_eq!(rescaled[1].arrival, Duration::from_millis(100));
    assert_eq!(rescaled[2].arrival, Duration::from_millis(200));
}

#[test]
fn a_stretch_of_a_trace_is_successive_rows_chosen_by_the_seed() {
    let rows: String = (0..60)
        .map(|n| format!("2023-11-16 18:15:{n:02},{},5\n", n + 1))
        .collect();
    let trace = trace(&format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")).unwrap();
    let workload = Workload::of_trace(Arc::new(trace));
    let starts: std::collections::BTreeSet<_> = (0..20)
        .map(|seed| {
            let stretch = workload.requests(10, None, seed).unwrap();
            assert_eq!(stretch[0].arrival, Duration::ZERO);
            assert_eq!(stretch[9].arrival, Duration::from_secs(9));
            let prompts = prompts(&stretch);
            assert!(prompts.windows(2).all(|pair| pair[1] == pair[0] + 1.0));
            prompts[0] as u64
        })
        .collect();
    assert!(starts.len() > 10, "{starts:?}");
    assert_eq!(workload.requests(100, None, 1).unwrap().len(), 60);
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let conversation = Workload::of_shape(Shape::Conversation);
    assert_eq!(
        conversation.requests(0, Some(1.0), 1),
        Err(WorkloadError::Count(0))
    );
    assert_eq!(
        conversation.requests(1, None, 1),
        Err(WorkloadError::NoRate)
    );
    assert_eq!(
        conversation.requests(1, Some(0.0), 1),
        Err(WorkloadError::Rate(0.0))
    );
    assert!(conversation.requests(1, Some(f64::NAN), 1).is_err());
    assert_eq!(
        conversation.arriving(Arrivals::Recorded).unwrap_err(),
        WorkloadError::NoTimes("conversation".to_owned())
    );
    let same = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1\n2023-11-16 18:15:46,1,1\n";
    let workload = Workload::of_trace(Arc::new(trace(same).unwrap()));
    assert_eq!(
        workload.requests(2, Some(1.0), 1),
        Err(WorkloadError::NoSpan(2))
    );
    assert!(workload.requests(2, None, 1).is_ok());
}

#[test]
fn names_are_read_back() {
    for shape in Shape::ALL {
        assert_eq!(shape.name().parse(), Ok(shape));
    }
    assert_eq!("bursty:2.5".parse(), Ok(Arrivals::Bursty { cv: 2.5 }));
    assert_eq!(Arrivals::Bursty { cv: 2.5 }.to_string(), "bursty:2.5");
    assert_eq!("poisson".parse(), Ok(Arrivals::Poisson));
    assert!(
        "bursty:1"
            .parse::<Arrivals>()
            .unwrap_err()
            .contains("1.1 to 100")
    );
    assert!(
        "chat"
            .parse::<Shape>()
            .unwrap_err()
            .contains("conversation, code-completion")
    );
}

#[test]
fn sizes_correlate_with_service_times_as_they_are_told_to() {
    for (cv, tolerance) in [(0.73, 0.01), (2.4684, 0.03)] {
        for wanted in [0.0, 0.29, 0.8, 0.95] {
            let times = ServiceTimes::Lognormal {
                median_seconds: 10.0,
                cv,
            };
            let hint = SizeHint {
                correlation: wanted,
                mean: 250_000.0,
                cv: None,
            };
            let workload = Workload::of_sized_service(times, hint).unwrap();
            let requests = workload.requests(200_000, Some(1.0), 3).unwrap();
            let pairs: Vec<(f64, f64)> = requests
                .iter()
                .map(|it| (it.size.unwrap() as f64, it.service.unwrap().as_secs_f64()))
                .collect();
            let mean = |part: &dyn Fn(&(f64, f64)) -> f64| {
                pairs.iter().map(part).sum::<f64>() / pairs.len() as f64
            };
            let (size, time) = (mean(&|it| it.0), mean(&|it| it.1));
            let joint = mean(&|it| (it.0 - size) * (it.1 - time));
            let spread = mean(&|it| (it.0 - size).powi(2)) * mean(&|it| (it.1 - time).powi(2));
            let found = joint / spread.sqrt();
            assert!(
                (found - wanted).abs() < tolerance,
                "{cv}: {found} for {wanted}"
            );
            assert!((size / 250_000.0 - 1.0).abs() < 0.05, "{size}");
            // What requests show leaves alone what they are.
            let bare = Workload::of_service(times).requests(200_000, Some(1.0), 3);
            let times = |requests: &[Request]| -> Vec<_> {
                requests.iter().map(|it| (it.arrival, it.service)).collect()
            };
            assert_eq!(times(&bare.unwrap()), times(&requests));
        }
    }
}

#[test]
fn parts_have_their_shares_side_by_side_or_one_after_the_other() {
    let part = |share, seconds| Part {
        share,
        workload: Workload::of_service(ServiceTimes::Constant { seconds }),
    };
    let is_long = |request: &Request| request.service == Some(Duration::from_secs(2));
    let parts = || vec![part(3.0, 1.0), part(1.0, 2.0)];
    let phases = Workload::of_phases(parts()).unwrap();
    let phases = phases.requests(4_000, Some(1.0), 1).unwrap();
    let long: Vec<bool> = phases.iter().map(is_long).collect();
    assert_eq!(long, [vec![false; 3_000], vec![true; 1_000]].concat());
    assert!(phases.is_sorted_by_key(|it| it.arrival));
    let mix = Workload::of_mix(parts()).unwrap();
    let mix = mix.requests(4_000, Some(1.0), 1).unwrap();
    let long = mix.iter().filter(|it| is_long(it)).count();
    // 1,000 expected; six standard deviations of 27.
    assert!((836..1_164).contains(&long), "{long}");
    let late = mix.iter().skip(2_000).filter(|it| is_long(it)).count();
    assert!((384..616).contains(&late), "{late} of {long} are late");
}

#[test]
fn parts_that_cannot_be_one_workload_are_refused() {
    let shape = |share| Part {
        share,
        workload: Workload::of_shape(Shape::Conversation),
    };
    let refused = |parts| Workload::of_mix(parts).unwrap_err();
    assert_eq!(refused(vec![]), ": no part is not allowed: at least one");
    assert_eq!(
        refused(vec![shape(1.0), shape(0.0)]),
        "[1].share: 0 is not allowed: 0.001 to 1000"
    );
    let nested = Part {
        share: 1.0,
        workload: Workload::of_phases(vec![shape(1.0)]).unwrap(),
    };
    assert_eq!(
        refused(vec![shape(1.0), nested]),
        "[1].workload: 1 x conversation is not allowed: a shape, tokens or service times"
    );
    let slots = Part {
        share: 1.0,
        workload: Workload::of_shape(Shape::Diffusion),
    };
    assert_eq!(
        refused(vec![shape(1.0), slots]),
        "[1].workload: diffusion is not allowed: all parts with service times, or none"
    );
}

#[test]
fn tokens_are_requests_that_are_all_alike() {
    let requests = Workload::of_tokens(20, 1)
        .and_then(|it| it.requests(50, Some(2.0), 1).map_err(|e| e.to_string()))
        .unwrap();
    let tokens = |it: &Request| (it.prompt_tokens.get(), it.output_tokens.get(), it.size);
    assert!(requests.iter().all(|it| tokens(it) == (20, 1, Some(20))));
    assert!(requests.is_sorted_by_key(|it| it.arrival));
    let error = Workload::of_tokens(20, 0).unwrap_err();
    assert!(error.starts_with("output: 0 is not allowed"), "{error}");
}
