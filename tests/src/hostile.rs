//! Hostile components that no language has words for: handlers of wasi:http 0.2 as text, with a core module of any kind.
//!
//! Each answers GET with an empty 200, so that a test can ask whether its worker still serves.

/// The parts of such a component. Each has a harmless default.
#[derive(Clone, Debug)]
pub struct Hostile<'a> {
    /// The memory and data of the module that holds them; it must export `memory`.
    pub memory: &'a str,
    /// What `realloc` does, of type `[i32 i32 i32 i32] -> [i32]`; it may `call $fields`. The host calls it for a method
    /// that it has no name for.
    pub realloc: &'a str,
    /// Tables, globals, functions, a start function.
    pub declarations: &'a str,
    /// What POST runs before it is answered. `$append` is `fields.append` in UTF-16, `$fields` makes fields.
    pub on_post: &'a str,
    /// What PUT runs before it is answered.
    pub on_put: &'a str,
    /// What GET runs before it is answered.
    pub on_get: &'a str,
    /// More definitions, next to the module.
    pub beside: &'a str,
}

impl Default for Hostile<'_> {
    fn default() -> Self {
        Self {
            memory: "(memory (export \"memory\") 1)",
            realloc: "(i32.const 1024)",
            declarations: "",
            on_post: "",
            on_put: "",
            on_get: "",
            beside: "",
        }
    }
}

impl Hostile<'_> {
    /// Returns the component.
    ///
    /// # Panics
    ///
    /// If the text is not that of a component.
    pub fn component(&self) -> Vec<u8> {
        wat::parse_str(self.text()).expect("the text of a component")
    }

    fn text(&self) -> String {
        let Self {
            memory,
            realloc,
            declarations,
            on_post,
            on_put,
            on_get,
            beside,
        } = self;
        format!(
            r#"(component
            {TYPES}
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $outparam))
            (core module $memory {memory})
            (core instance $memory (instantiate $memory))
            (core func $fields (canon lower (func $types "[constructor]fields")))
            (core module $realloc
                (import "host" "fields" (func $fields (result i32)))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
            (core instance $realloc (instantiate $realloc
                (with "host" (instance (export "fields" (func $fields))))))
            (core func $response (canon lower (func $types "[constructor]outgoing-response")))
            (core func $method (canon lower (func $types "[method]incoming-request.method")
                (memory (core memory $memory "memory")) (realloc (core func $realloc "realloc"))))
            (core func $append (canon lower (func $types "[method]fields.append")
                (memory (core memory $memory "memory")) string-encoding=utf16))
            (core func $set (canon lower (func $types "[static]response-outparam.set") (memory (core memory $memory "memory"))))
            {beside}
            (core module $main
                (import "memory" "memory" (memory 1))
                (import "host" "fields" (func $fields (result i32)))
                (import "host" "response" (func $response (param i32) (result i32)))
                (import "host" "method" (func $method (param i32 i32)))
                (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
                (import "host" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
                {declarations}
                (func $on-post {on_post})
                (func $on-put {on_put})
                (func $on-get {on_get})
                (func (export "handle") (param $request i32) (param $out i32)
                    (local $method i32)
                    (call $method (local.get $request) (i32.const 8))
                    (local.set $method (i32.load8_u (i32.const 8)))
                    (i64.store (i32.const 8) (i64.const 0))
                    (i64.store (i32.const 16) (i64.const 0))
                    (if (i32.eq (local.get $method) (i32.const 0)) (then (call $on-get)))
                    (if (i32.eq (local.get $method) (i32.const 2)) (then (call $on-post)))
                    (if (i32.eq (local.get $method) (i32.const 3)) (then (call $on-put)))
                    (call $set (local.get $out) (i32.const 0) (call $response (call $fields)) (i32.const 0) (i64.const 0)
                        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
            (core instance $main (instantiate $main
                (with "memory" (instance $memory))
                (with "host" (instance
                    (export "fields" (func $fields))
                    (export "response" (func $response))
                    (export "method" (func $method))
                    (export "append" (func $append))
                    (export "set" (func $set))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
                (canon lift (core func $main "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
        )
    }
}

/// As much of wasi:http's types as the answer needs.
const TYPES: &str = r#"(import "wasi:http/types@0.2.0" (instance $types
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type $request (sub resource)))
    (export "outgoing-response" (type $response (sub resource)))
    (export "response-outparam" (type $outparam (sub resource)))
    (type $method' (variant (case "get") (case "head") (case "post") (case "put") (case "delete") (case "connect")
        (case "options") (case "trace") (case "patch") (case "other" string)))
    (export "method" (type $method (eq $method')))
    (type $header-error' (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $header-error (eq $header-error')))
    (type $dns' (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns (eq $dns')))
    (type $tls' (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls (eq $tls')))
    (type $size' (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $size (eq $size')))
    (type $error-code' (variant
        (case "DNS-timeout") (case "DNS-error" $dns) (case "destination-not-found") (case "destination-unavailable")
        (case "destination-IP-prohibited") (case "destination-IP-unroutable") (case "connection-refused")
        (case "connection-terminated") (case "connection-timeout") (case "connection-read-timeout")
        (case "connection-write-timeout") (case "connection-limit-reached") (case "TLS-protocol-error")
        (case "TLS-certificate-error") (case "TLS-alert-received" $tls) (case "HTTP-request-denied")
        (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
        (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
        (case "HTTP-request-header-section-size" (option u32)) (case "HTTP-request-header-size" (option $size))
        (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $size)
        (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
        (case "HTTP-response-header-size" $size) (case "HTTP-response-body-size" (option u64))
        (case "HTTP-response-trailer-section-size" (option u32)) (case "HTTP-response-trailer-size" $size)
        (case "HTTP-response-transfer-coding" (option string)) (case "HTTP-response-content-coding" (option string))
        (case "HTTP-response-timeout") (case "HTTP-upgrade-failed") (case "HTTP-protocol-error")
        (case "loop-detected") (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $error-code')))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func (param "self" (borrow $fields)) (param "name" string)
        (param "value" (list u8)) (result (result (error $header-error)))))
    (export "[method]incoming-request.method" (func (param "self" (borrow $request)) (result $method)))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $response))))
    (export "[static]response-outparam.set" (func (param "param" (own $outparam))
        (param "response" (result (own $response) (error $error-code)))))))"#;
