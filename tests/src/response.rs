//! What a server answered, over either protocol.

/// The head of an answer, and its body if that was read.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Name and value of every field; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The fields after the body.
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// Returns the value of the first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|field| field.0 == name)
            .map(|field| field.1.as_str())
    }

    /// Returns the values of all fields of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |field| field.0 == name)
            .map(|field| field.1.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Tells whether the server will close the connection after this answer.
    pub fn closes(&self) -> bool {
        self.all("connection")
            .any(|value| value.eq_ignore_ascii_case("close"))
    }

    /// Checks the status and returns the body as text.
    ///
    /// # Panics
    ///
    /// If the status is not 200.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.text()
    }
}
