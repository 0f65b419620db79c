//! Variables, as people set them and as they get them wrong.

use super::*;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

fn read(variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
    let mut warnings = Vec::new();
    let value = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.to_owned());
    (Settings::read(value, &mut warnings), warnings)
}

fn good(variables: &[(&str, &str)]) -> Settings {
    let (settings, warnings) = read(variables);
    assert!(warnings.is_empty(), "{warnings:?}");
    settings.expect("an endpoint")
}

#[test]
fn the_path_is_added_to_the_general_endpoint_only() {
    for (name, endpoint, expected) in [
        (ENDPOINT, "http://collector:4318", "http://collector:4318/v1/traces"),
        (ENDPOINT, "http://collector:4318/", "http://collector:4318/v1/traces"),
        (ENDPOINT, "https://example.org/otlp/?key=1#x", "https://example.org/otlp/v1/traces?key=1"),
        (OWN, "http://collector:4318", "http://collector:4318/"),
        (OWN, "https://[::1]/spans", "https://[::1]/spans"),
    ] {
        assert_eq!(good(&[(name, endpoint)]).url.as_str(), expected);
    }
}

#[test]
fn headers_are_decoded_and_no_value_of_one_can_be_seen() {
    let general = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=geheim, authorization = Basic%20Zm9v,,");
    let settings = good(&[(ENDPOINT, "http://a"), general]);
    assert_eq!(settings.headers["api-key"], "geheim");
    assert_eq!(settings.headers["authorization"], "Basic Zm9v");
    assert_eq!(settings.headers["content-type"], "application/x-protobuf");
    let shown = format!("{settings:?}");
    assert!(!shown.contains("geheim") && !shown.contains("Zm9v"), "{shown}");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x=1");
    let settings = good(&[(ENDPOINT, "http://a"), general, own]);
    assert!(settings.headers.contains_key("x") && !settings.headers.contains_key("api-key"));
}

#[test]
fn a_mistake_about_where_spans_go_leaves_them_out_and_is_told_without_its_value() {
    for (variables, expected) in [
        (&[(ENDPOINT, "collector:4318")][..], "OTEL_EXPORTER_OTLP_ENDPOINT: it is no address of http:// or https://"),
        (&[(OWN, "geheim")], "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: it is no address: "),
        (&[(ENDPOINT, "https://u:geheim@a")], "OTEL_EXPORTER_OTLP_ENDPOINT: it has credentials: "),
        (&[(ENDPOINT, "unix:///geheim")], "OTEL_EXPORTER_OTLP_ENDPOINT: it is no address of http:// or https://"),
        (
            &[(ENDPOINT, "http://a:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken",
        ),
        (
            &[(ENDPOINT, "http://a"), ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,geheim")],
            "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is no header",
        ),
        (
            &[(ENDPOINT, "http://a"), ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=geheim%0d%0ab: 1")],
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS: entry 1 is no header",
        ),
    ] {
        let (settings, warnings) = read(variables);
        assert!(settings.is_none(), "{variables:?}");
        let [warning] = &warnings[..] else { panic!("{variables:?}: {warnings:?}") };
        assert!(warning.starts_with(expected) && warning.ends_with(": no spans are exported"), "{warning}");
        assert!(!warning.contains("geheim"), "{warning}");
    }
}

#[test]
fn any_other_mistake_is_told_and_the_default_is_used() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2049"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a"),
    ] {
        let (settings, warnings) = read(&[(ENDPOINT, "http://a"), (name, value)]);
        let settings = settings.expect("exported all the same");
        assert_eq!((settings.timeout, settings.delay), (TIMEOUT, DELAY));
        assert_eq!((settings.queue, settings.batch, settings.sampler), (QUEUE, BATCH, Sampler::default()));
        let [warning] = &warnings[..] else { panic!("{name}: {warnings:?}") };
        assert!(warning.starts_with(&format!("{name}: ")) && warning.ends_with(": the default is used"), "{warning}");
    }
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/etc/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/etc/client.pem"),
    ] {
        let (settings, warnings) = read(&[(ENDPOINT, "http://a"), (name, value)]);
        assert!(settings.is_some());
        assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("{name} is not read: ")), "{warnings:?}");
    }
    assert!(read(&[(ENDPOINT, "http://a"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "none")]).1.is_empty());
}

#[test]
fn a_smaller_queue_has_a_smaller_batch() {
    let settings = good(&[
        (ENDPOINT, "http://a"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ]);
    assert_eq!((settings.queue, settings.batch), (100, 100));
    assert_eq!((settings.timeout.as_millis(), settings.delay.as_millis()), (1500, 20));
}

#[test]
fn the_service_has_the_name_that_it_is_given() {
    let attributes = (
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=of-list,deployment.environment.name=pr%C3%BCf,service.instance.id=7",
    );
    for (variables, name, others) in [
        (&[][..], "acr-cache-proxy", 0),
        (&[attributes], "of-list", 1),
        (&[attributes, ("OTEL_SERVICE_NAME", "mirror")], "mirror", 1),
    ] {
        let settings = good(&[&[(ENDPOINT, "http://a")], variables].concat());
        let values = |wanted: &str| {
            let found = settings.resource.iter().filter(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
            found.collect::<Vec<_>>()
        };
        assert_eq!(values("service.name"), [name]);
        assert_eq!(values("service.version"), [env!("CARGO_PKG_VERSION")]);
        assert_eq!(values("deployment.environment.name"), vec!["prüf"; others]);
        assert_eq!(values("service.instance.id").len(), 1);
    }
    let id = instance();
    assert!(id.len() == 36 && id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
}
