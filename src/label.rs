//! Closed sets of values with names: kinds, results, reasons. No client can add to them, so they can be labels of metrics.

/// Declares such a set: the enum, all of it, and the name of each.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum $name {
            $($(#[$value_doc])* $value),+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            #[allow(dead_code, reason = "not every set is gone through")]
            pub(crate) const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];

            /// Its name, in the log, in metrics and in answers.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $text),+
                }
            }
        }
    };
}

pub(crate) use labels;
