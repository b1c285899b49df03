//! Components with their modules apart, and fused: they do the same.

use super::*;
use wasmparser::{Parser, Payload};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Store};

/// A library beside its program, with detours for what needs memory, as tools make them: `run` adds up what each part of it
/// comes to.
const PROGRAM: &str = r#"(component
  (import "host" (instance $host
    (export "three" (func (result u32)))
    (export "len" (func (param "text" string) (result u32)))))
  (alias export $host "three" (func $three))
  (alias export $host "len" (func $len))
  (core module $detours
    (type $f (func (param i32 i32) (result i32)))
    (table (export "$imports") 1 funcref)
    (func (export "0") (type $f)
      local.get 0 local.get 1 i32.const 0 call_indirect (type $f)))
  (core module $env
    (memory (export "memory") 1)
    (table (export "table") 4 funcref)
    (global (export "table_base") i32 (i32.const 2))
    (global (export "count") (mut i32) (i32.const 100))
    (data (i32.const 8) "hello"))
  (core module $library
    (import "env" "memory" (memory 1))
    (import "env" "table" (table 4 funcref))
    (import "env" "table_base" (global $base i32))
    (import "env" "count" (global $count (mut i32)))
    (type $none (func (result i32)))
    (elem (global.get $base) func $ten)
    (elem (table 0) (offset (i32.add (global.get $base) (i32.const 1))) func $eleven)
    (func $ten (result i32) i32.const 10)
    (func $eleven (result i32) i32.const 11)
    (func $seven (export "seven") (result i32) i32.const 7)
    (func (export "indirect") (param i32) (result i32)
      local.get 0 global.get $base i32.add call_indirect (type $none))
    (func $bump (export "bump") global.get $count i32.const 1 i32.add global.set $count)
    @start)
  (core module $main
    (import "env" "memory" (memory 1))
    (import "env" "count" (global $count (mut i32)))
    (import "library" "seven" (func $seven (result i32)))
    (import "library" "indirect" (func $indirect (param i32) (result i32)))
    (import "library" "bump" (func $bump))
    (import "host" "three" (func $three (result i32)))
    (import "host" "len" (func $len (param i32 i32) (result i32)))
    (type $none (func (result i32)))
    (func (export "run") (result i32)
      call $bump
      global.get $count
      call $three i32.add
      (i32.add (call $len (i32.const 8) (i32.const 5)))
      (i32.add (call $indirect (i32.const 0)))
      (i32.add (call $indirect (i32.const 1)))
      (i32.add (call $seven))))
  (core module $fill
    (import "" "$imports" (table 1 funcref))
    (import "" "0" (func $len (param i32 i32) (result i32)))
    (elem (i32.const 0) func $len))
  (core instance $detours (instantiate $detours))
  (core instance $env (instantiate $env))
  (core instance $library (instantiate $library (with "env" (instance $env))))
  (alias core export $detours "0" (core func $late))
  (core func $three (canon lower (func $three)))
  (core instance $of-host (export "three" (func $three)) (export "len" (func $late)))
  (core instance $main (instantiate $main
    (with "env" (instance $env))
    (with "library" (instance $library))
    (with "host" (instance $of-host))))
  (alias core export $env "memory" (core memory $memory))
  (core func $len (canon lower (func $len) (memory $memory)))
  (alias core export $detours "$imports" (core table $table))
  (core instance $filling (export "$imports" (table $table)) (export "0" (func $len)))
  (core instance (instantiate $fill (with "" (instance $filling))))
  (alias core export $main "run" (core func $run))
  (func (export "run") (result u32) (canon lift (core func $run))))"#;

/// Returns it; `start` is code that the library runs when it is instantiated.
fn program(start: &str) -> Vec<u8> {
    wat::parse_str(PROGRAM.replace("@start", start)).unwrap()
}

/// Runs a component, with a host that knows what 3 is and how long a text is.
fn run(wasm: &[u8]) -> u32 {
    let engine = Engine::new(Config::new().concurrency_support(false)).unwrap();
    let component = Component::new(&engine, wasm).unwrap();
    let mut linker = Linker::new(&engine);
    let mut host = linker.instance("host").unwrap();
    host.func_wrap("three", |_, ()| Ok((3_u32,))).unwrap();
    let len = |_: wasmtime::StoreContextMut<'_, ()>, (text,): (String,)| {
        assert_eq!(text, "hello");
        Ok((u32::try_from(text.len()).unwrap(),))
    };
    host.func_wrap("len", len).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &component).unwrap();
    let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run");
    run.unwrap().call(&mut store, ()).unwrap().0
}

/// Counts the core modules of a component.
fn modules(wasm: &[u8]) -> usize {
    let payloads = Parser::new(0).parse_all(wasm).map(Result::unwrap);
    payloads
        .filter(|payload| matches!(payload, Payload::ModuleSection { .. }))
        .count()
}

#[test]
fn fused_modules_do_what_they_did_apart() {
    let apart = program("");
    let fused = fuse(&apart).unwrap();
    assert_eq!((modules(&apart), modules(&fused)), (5, 2));
    let expected = 101 + 3 + 5 + 10 + 11 + 7;
    assert_eq!((run(&apart), run(&fused)), (expected, expected));
}

#[test]
fn module_that_runs_code_at_its_start_stays_and_so_does_what_follows_it() {
    let apart = program("(start $bump)");
    let expected = 102 + 3 + 5 + 10 + 11 + 7;
    assert_eq!(run(&apart), expected);
    let fused = fuse(&apart).unwrap();
    assert_eq!(modules(&fused), 4, "detours and env are fused");
    assert_eq!(run(&fused), expected);
}

#[test]
fn tables_are_filled_at_places_that_are_known() {
    let fused = fuse(&program("")).unwrap();
    for payload in Parser::new(0).parse_all(&fused) {
        let Payload::ElementSection(elements) = payload.unwrap() else {
            continue;
        };
        for element in elements {
            let wasmparser::ElementKind::Active { offset_expr, .. } = element.unwrap().kind else {
                panic!("all are active");
            };
            let first = offset_expr.get_operators_reader().read().unwrap();
            assert!(
                matches!(first, wasmparser::Operator::I32Const { .. }),
                "{first:?}"
            );
        }
    }
}

#[test]
fn what_is_unusual_is_left_as_it_is() {
    let one_module = r#"(component
      (core module $m (func (export "f")))
      (core instance (instantiate $m)))"#;
    let module_used_twice = r#"(component
      (core module $m (func (export "f")))
      (core instance (instantiate $m))
      (core instance (instantiate $m)))"#;
    let module_of_another_component = r#"(component
      (core module $m (func (export "f")))
      (core module $n (func (export "f")))
      (component $c (core instance (instantiate $m)))
      (core instance (instantiate $m))
      (core instance (instantiate $n)))"#;
    for text in [one_module, module_used_twice, module_of_another_component] {
        assert!(fuse(&wat::parse_str(text).unwrap()).is_none(), "{text}");
    }
    assert!(fuse(b"\0asm\x0d\0\x01\0\x01\xff").is_none());
}
