//! Questions and answers: what is shown goes to standard output, and a line of standard input is an answer.

use std::fmt;
use std::io::{self, BufRead, Read as _, Write};

use oci::printable;

/// No registry, path or id is as long.
const MAX_ANSWER: usize = 1 << 10;
/// What is thrown away of an answer that is too long; whoever sends more is no person.
const MAX_LINE: usize = 64 << 10;
/// Whoever is wrong so often needs the documentation.
const MAX_TRIES: usize = 5;

/// Who agrees to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The person at the terminal.
    Ask,
    /// `--yes` has agreed to all of them.
    Yes,
    /// Nobody: steps are shown only.
    Show,
}

/// Why no more is asked, and so no more is done.
#[derive(Debug)]
pub(super) enum Stop {
    /// No answer will come.
    NoAnswer,
    /// Standard input cannot be read.
    Input(io::Error),
    /// What is to be agreed to cannot be shown.
    Output(io::Error),
    /// The answers are not what was asked for.
    TooOften,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nothing_more = "nothing more was done";
        match self {
            Self::NoAnswer => write!(f, "standard input ended before an answer: {nothing_more}"),
            Self::Input(cause) => write!(f, "standard input: {cause}: {nothing_more}"),
            Self::Output(cause) => write!(f, "standard output: {cause}: {nothing_more}"),
            Self::TooOften => write!(f, "{MAX_TRIES} answers could not be used: {nothing_more}"),
        }
    }
}

/// A person, or what stands for one.
pub(super) struct Conversation<R, W> {
    input: R,
    output: W,
    manner: Manner,
}

impl<R: BufRead, W: Write> Conversation<R, W> {
    pub(super) fn new(input: R, output: W, manner: Manner) -> Self {
        Self { input, output, manner }
    }

    pub(super) fn manner(&self) -> Manner {
        self.manner
    }

    /// Shows a text, at once. A file that is quoted in it may have characters by which a terminal shows something else.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Stop> {
        let text = printable::lines(text);
        self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush()).map_err(Stop::Output)
    }

    /// Whether a step is agreed to; a line without a word means `default`.
    pub(super) fn confirm(&mut self, question: &str, default: bool) -> Result<bool, Stop> {
        match self.manner {
            Manner::Yes => return Ok(true),
            Manner::Show => return Ok(false),
            Manner::Ask => {}
        }
        let choice = if default { "Y/n" } else { "y/N" };
        self.ask(&format!("{question} [{choice}] "), |answer| match answer.to_ascii_lowercase().as_str() {
            "" => Ok(default),
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err(format!("{answer:?} is neither yes nor no")),
        })
    }

    /// An answer that is right, by its own words for one that is not.
    pub(super) fn ask<T>(&mut self, question: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Stop> {
        for _ in 0..MAX_TRIES {
            self.say(question)?;
            match self.line()?.and_then(|line| parse(line.trim())) {
                Ok(answer) => return Ok(answer),
                Err(wrong) => self.say(&format!("  {wrong}\n"))?,
            }
        }
        Err(Stop::TooOften)
    }

    /// One line; the inner error is about a line that nobody has meant.
    fn line(&mut self) -> Result<Result<String, String>, Stop> {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        (&mut self.input).take(limit).read_until(b'\n', &mut line).map_err(Stop::Input)?;
        // Without its end it may be half an answer.
        let Some(line) = line.strip_suffix(b"\n") else {
            // A prompt is waiting in this line.
            self.say("\n")?;
            return Err(Stop::NoAnswer);
        };
        if line.len() > MAX_ANSWER {
            return Ok(Err(format!("an answer has at most {MAX_ANSWER} bytes")));
        }
        Ok(std::str::from_utf8(line).map(str::to_owned).map_err(|_| "it is not text in UTF-8".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(input: &[u8], default: bool) -> (Result<bool, Stop>, String) {
        let mut output = Vec::new();
        let said = Conversation::new(input, &mut output, Manner::Ask).confirm("Do it?", default);
        (said, String::from_utf8(output).expect("text"))
    }

    #[test]
    fn an_answer_is_yes_no_or_the_default_and_any_other_is_asked_for_again() {
        for (input, default, meant) in [
            (&b"\n"[..], true, true),
            (b"\n", false, false),
            (b" Yes \n", false, true),
            (b"n\n", true, false),
            (b"perhaps\nno\n", true, false),
            (b"\xff\xfe\ny\n", false, true),
            (&[&[b'y'; 2000][..], b"\nn\n"].concat(), true, false),
        ] {
            let (said, shown) = confirm(input, default);
            assert_eq!(said.ok(), Some(meant), "{input:?} {shown}");
        }
    }

    #[test]
    fn an_input_that_ends_or_never_answers_ends_the_questions() {
        for (input, says) in [
            (&b""[..], "standard input ended"),
            (b"y", "standard input ended"),
            (&[b'y'; 3 * MAX_LINE], "standard input ended"),
            (b"a\nb\nc\nd\ne\ny\n", "5 answers could not be used"),
        ] {
            let (said, shown) = confirm(input, true);
            let stop = said.expect_err(says).to_string();
            assert!(stop.contains(says) && stop.ends_with("nothing more was done"), "{stop} {shown}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_not_agreed_to() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let said = Conversation::new(&b"y\n"[..], Closed, Manner::Ask).confirm("Do it?", true);
        assert!(matches!(said, Err(Stop::Output(_))), "{said:?}");
    }

    #[test]
    fn a_file_that_is_shown_makes_the_terminal_show_nothing_else() {
        let mut output = Vec::new();
        let said = Conversation::new(&b""[..], &mut output, Manner::Ask).say("a\u{1b}[8mb\r\tc\n");
        assert!(said.is_ok());
        assert_eq!(String::from_utf8_lossy(&output), "a\\u{1b}[8mb\\u{d}\tc\n");
    }

    #[test]
    fn without_a_person_nothing_is_read() {
        for (manner, agreed) in [(Manner::Yes, true), (Manner::Show, false)] {
            let said = Conversation::new(&b"n\n"[..], Vec::new(), manner).confirm("Do it?", false);
            assert_eq!(said.ok(), Some(agreed));
        }
    }
}
