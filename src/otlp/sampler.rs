//! Which requests have a span: `OTEL_TRACES_SAMPLER`.

/// Decides when a request begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampler {
    /// Of requests that nobody has decided about: this part of them, from 0 to 1.
    ratio: f64,
    /// What a client has decided, by the flag of its `traceparent`, counts.
    follows_parent: bool,
}

impl Default for Sampler {
    /// `parentbased_always_on`.
    fn default() -> Self {
        Self { ratio: 1.0, follows_parent: true }
    }
}

impl Sampler {
    /// The one of this name. `argument` is `OTEL_TRACES_SAMPLER_ARG`, which only those by ratio read; without it they take all.
    /// `Err` is what would be right.
    pub(crate) fn parse(name: &str, argument: Option<&str>) -> Result<Self, &'static str> {
        let (follows_parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let ratio = match root {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => match argument.map(str::parse) {
                None => 1.0,
                Some(Ok(ratio @ 0.0..=1.0)) => ratio,
                Some(_) => return Err("OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1"),
            },
            _ => {
                return Err(
                    "it is none of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off and \
                     parentbased_traceidratio",
                );
            }
        };
        Ok(Self { ratio, follows_parent })
    }

    /// Whether a request of this trace has a span. `parent` is the flag of the client's, if it has one.
    pub(crate) fn takes(self, trace: u128, parent: Option<bool>) -> bool {
        match parent {
            Some(is_sampled) if self.follows_parent => is_sampled,
            // By the bits that the SDKs compare, so that all programs of a trace with one ratio decide alike.
            // The highest of them are rounded up to the bound itself.
            _ => self.ratio >= 1.0 || ((trace as u64 >> 1) as f64) < self.ratio * (1_u64 << 63) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: u128 = 0x0af7_6519_16cd_43dd_0000_0000_0000_0001;
    const MIDDLE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
    const HIGH: u128 = 0x0000_0000_0000_0000_ffff_ffff_ffff_ffff;

    #[test]
    fn each_sampler_takes_what_it_says() {
        for (name, argument, taken, with_parent) in [
            ("always_on", None, [true; 3], [true; 2]),
            ("always_off", None, [false; 3], [false; 2]),
            ("traceidratio", None, [true; 3], [true; 2]),
            ("traceidratio", Some("0.5"), [true, false, false], [false; 2]),
            ("traceidratio", Some("0.6"), [true, true, false], [true; 2]),
            ("traceidratio", Some("0"), [false; 3], [false; 2]),
            ("parentbased_always_on", None, [true; 3], [false, true]),
            ("parentbased_always_off", Some("1"), [false; 3], [false, true]),
            ("parentbased_traceidratio", Some("0.5"), [true, false, false], [false, true]),
        ] {
            let sampler = Sampler::parse(name, argument).expect(name);
            assert_eq!([LOW, MIDDLE, HIGH].map(|trace| sampler.takes(trace, None)), taken, "{name} {argument:?}");
            let of_parent = [false, true].map(|parent| sampler.takes(MIDDLE, Some(parent)));
            assert_eq!(of_parent, with_parent, "{name} {argument:?}");
        }
        assert_eq!(Sampler::parse("parentbased_always_on", None), Ok(Sampler::default()));
    }

    #[test]
    fn what_is_no_sampler_is_refused() {
        for (name, argument) in [
            ("", None),
            ("always", None),
            ("xray", None),
            ("parentbased_", None),
            ("traceidratio", Some("2")),
            ("traceidratio", Some("-0.1")),
            ("traceidratio", Some("nan")),
            ("parentbased_traceidratio", Some("half")),
        ] {
            Sampler::parse(name, argument).expect_err(name);
        }
    }
}
