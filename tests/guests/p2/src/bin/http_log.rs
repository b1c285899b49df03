//! Writes to the log: `/?bytes=N` much of it, `/ansi` what a terminal must not see, `/line?text=…` one line.

use std::io::{self, Write};

use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

const LINE: [u8; 80] = {
    let mut line = [b'x'; 80];
    line[79] = b'\n';
    line
};

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let written = match query::path(&request).as_str() {
        "/ansi" => io::stderr()
            .write_all(b"\x1b[31mred\x1b[0m \x1b]0;title\x07 cr\rnul\0 utf8 \xff\xfe end\n"),
        "/line" => {
            let text = query::text(&request, "text").unwrap_or_default();
            writeln!(io::stdout(), "{text}")
        }
        _ => write_lines(query::number(&request, "bytes").unwrap_or(0)),
    };
    match written {
        Ok(()) => response::text(out, "logged\n"),
        Err(error) => response::respond(out, 500, &[], error.to_string().as_bytes()),
    }
}

/// Writes `len` bytes to stdout; the last line is shorter if need be.
fn write_lines(len: usize) -> io::Result<()> {
    let mut stdout = io::stdout();
    let mut rest = len;
    while rest > 0 {
        let line_len = rest.min(LINE.len());
        stdout.write_all(&LINE[LINE.len() - line_len..])?;
        rest -= line_len;
    }
    Ok(())
}
