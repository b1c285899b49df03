//! The bindings as `wit-bindgen` makes them from `wit/`: for guests that need a call exactly as the host offers it.
//!
//! The other modules of this crate are made of these and are easier to use.

#![expect(
    missing_docs,
    reason = "generated: what has a meaning is documented in wit/"
)]

wit_bindgen::generate!({
    path: "wit",
    world: "worker",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_consumer",
    default_bindings_module: "::wrun_sdk::bindings",
    additional_derives: [PartialEq],
});
