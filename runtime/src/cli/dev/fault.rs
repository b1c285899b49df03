//! What went wrong, as a page for a person and as text for a program.

use crate::failure::Failure;

/// How much of the output a page shows, in bytes: the page has to fit into one message of the control socket.
const SHOWN_MAX: usize = 24 << 10;

/// How much it shows of a failure's message and of its hint.
const LINE_MAX: usize = 1 << 10;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;\
color:#222;background:#fff}h1{font-size:1.3rem;color:#b00020}pre{font-size:.85rem;padding:1rem;overflow-x:auto;\
background:#f4f4f4}@media(prefers-color-scheme:dark){body{color:#ddd;background:#1a1a1a}h1{color:#ff6b6b}\
pre{background:#262626}}";

/// Why there is no new version.
pub(super) struct Fault {
    pub(super) failure: Failure,
    /// What building had to say.
    pub(super) output: String,
    /// What is served nevertheless.
    pub(super) meanwhile: &'static str,
}

impl Fault {
    /// Returns it as plain text.
    pub(super) fn text(&self) -> String {
        let Self {
            failure, output, ..
        } = self;
        let hint = failure.hint.iter().map(|hint| format!("  hint: {hint}\n"));
        format!("wrun: {failure}\n{}\n{output}", hint.collect::<String>())
    }

    /// Returns it as a page, which loads itself again every two seconds.
    pub(super) fn html(&self) -> String {
        let message = last(&escape(&self.failure.message), LINE_MAX).to_owned();
        let hint = escape(self.failure.hint.as_deref().unwrap_or_default());
        let hint = last(&hint, LINE_MAX);
        let output = escape(&self.output);
        let output = last(&output, SHOWN_MAX);
        let meanwhile = self.meanwhile;
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"refresh\" content=\"2\">\n<title>wrun dev: {message}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<h1>{message}</h1>\n<p>{hint}</p>\n<pre>{output}</pre>\n\
             <p>{meanwhile}</p>\n</body>\n</html>\n"
        )
    }
}

/// Returns the text as HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Returns the last lines of a text that are at most `max` bytes together.
fn last(text: &str, max: usize) -> &str {
    let Some(surplus) = text.len().checked_sub(max).filter(|surplus| *surplus > 0) else {
        return text;
    };
    let cut = text.as_bytes()[surplus - 1..]
        .iter()
        .position(|byte| *byte == b'\n');
    cut.map_or("", |at| &text[surplus + at..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::ExitCode;
    use crate::ipc::{ControlRequest, PACKET_MAX};

    fn fault(output: &str) -> Fault {
        let failure = Failure::new(ExitCode::BadComponent, "cargo could not build <app>");
        Fault {
            failure: failure.hint("see its messages"),
            output: output.to_owned(),
            meanwhile: "The last good version goes on.",
        }
    }

    #[test]
    fn page_shows_message_hint_and_output_as_text_and_not_as_html() {
        let html = fault("error: expected `;`\n --> <script>alert(1)</script> & so on\n").html();
        for text in [
            "<h1>cargo could not build &lt;app&gt;</h1>",
            "<p>see its messages</p>",
            "error: expected `;`\n --&gt; &lt;script&gt;alert(1)&lt;/script&gt; &amp; so on",
            "<p>The last good version goes on.</p>",
        ] {
            assert!(html.contains(text), "{html}");
        }
        assert!(!html.contains("<script"), "{html}");
    }

    #[test]
    fn text_is_what_the_terminal_shows() {
        let text = fault("error: no\n").text();
        assert_eq!(
            text,
            "wrun: cargo could not build <app>\n  hint: see its messages\n\nerror: no\n"
        );
    }

    #[test]
    fn page_of_the_longest_output_fits_into_a_message() {
        for line in ["<<<<<<<<\n", "\"\"\"\"\"\"\"\"\n", "\n", "äääää\n", "a"] {
            let mut fault = fault(&line.repeat(64 << 10));
            fault.failure.message = "<".repeat(64 << 10);
            let request = ControlRequest::ShowError(fault.html());
            let len = serde_json::to_vec(&request).unwrap().len();
            assert!(len <= PACKET_MAX, "{line:?}: {len} bytes");
        }
    }

    #[test]
    fn whole_lines_are_kept_of_what_is_too_long() {
        assert_eq!(last("one\ntwo\n", 8), "one\ntwo\n");
        assert_eq!(last("one\ntwo\n", 7), "two\n");
        assert_eq!(last("one\ntwo\n", 4), "two\n");
        assert_eq!(last("one\ntwo\n", 3), "");
    }
}
