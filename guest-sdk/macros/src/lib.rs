//! The attributes of `wrun-sdk`, which documents them: each makes a function an export of the component.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{ToTokens as _, quote};
use syn::spanned::Spanned as _;
use syn::{Error, Ident, ItemFn, parse_quote};

/// Makes a function the component's HTTP handler.
#[proc_macro_attribute]
pub fn http(attributes: TokenStream, function: TokenStream) -> TokenStream {
    entry(attributes, function, "__wrun_http_main", |handler| {
        quote! {
            impl ::wrun_sdk::entry::IncomingHandler for Component {
                fn handle(
                    request: ::wrun_sdk::entry::IncomingRequest,
                    out: ::wrun_sdk::entry::ResponseOutparam,
                ) {
                    ::wrun_sdk::entry::http(#handler, request, out)
                }
            }
            ::wrun_sdk::entry::wasip2::http::proxy::export!(
                Component with_types_in ::wrun_sdk::entry::wasip2
            );
        }
    })
}

/// Makes a function the component's handler of messages.
#[proc_macro_attribute]
pub fn consumer(attributes: TokenStream, function: TokenStream) -> TokenStream {
    entry(attributes, function, "__wrun_consumer_main", |handler| {
        quote! {
            impl ::wrun_sdk::entry::Consumer for Component {
                fn handle(batch: ::wrun_sdk::entry::Batch) -> ::wrun_sdk::entry::Outcomes {
                    ::wrun_sdk::entry::consumer(#handler, batch)
                }
            }
            ::wrun_sdk::entry::export_consumer!(
                Component with_types_in ::wrun_sdk::bindings
            );
        }
    })
}

fn entry(
    attributes: TokenStream,
    function: TokenStream,
    main: &str,
    export: impl FnOnce(&Ident) -> Tokens,
) -> TokenStream {
    parse(attributes, function)
        .map(|function| expand(function, main, export))
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

fn parse(attributes: TokenStream, function: TokenStream) -> syn::Result<ItemFn> {
    let attributes = Tokens::from(attributes);
    if !attributes.is_empty() {
        return Err(Error::new(attributes.span(), "it takes no arguments"));
    }
    let function: ItemFn = syn::parse(function)?;
    if let Some(token) = &function.sig.asyncness {
        return Err(Error::new(
            token.span(),
            "the function cannot be async: calls to the host wait by themselves",
        ));
    }
    if function.sig.inputs.len() != 1 {
        return Err(Error::new(
            function.sig.span(),
            "the function takes one argument",
        ));
    }
    Ok(function)
}

/// Returns the function and its export. If it is called `main` it goes by another name, and the binary gets the `main`
/// that it needs and the host never calls.
fn expand(mut function: ItemFn, main: &str, export: impl FnOnce(&Ident) -> Tokens) -> Tokens {
    let mut program = Tokens::new();
    if function.sig.ident == "main" {
        function.sig.ident = Ident::new(main, function.sig.ident.span());
        let main: ItemFn = parse_quote! {
            fn main() {
                panic!("this component is not a program: wrun calls its handlers");
            }
        };
        program = main.into_token_stream();
    }
    let export = export(&function.sig.ident);
    quote! {
        #function
        #program
        const _: () = {
            struct Component;
            #export
        };
    }
}
