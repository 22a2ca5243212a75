//! Most mutations are of a field, so that they come through the decoding.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use profile_service::pb;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, ReflectMessage as _, Value, prost::Message as _};
use rand::{
    RngExt as _, SeedableRng as _,
    rngs::SmallRng,
    seq::{IndexedMutRandom as _, IndexedRandom as _},
};

/// How much longer a mutation makes a string at the most, in bytes.
const ROOM: usize = 64;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(pb::DESCRIPTORS).expect("the contract's descriptors"));

fuzz_target!(|input: &[u8]| profile_service::fuzzing::request(input));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // An input keeps its RPC.
    let name = data[..size].iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut random = SmallRng::seed_from_u64(seed.into());
    let message = if random.random_ratio(3, 4) { mutated(&data[..size], name, &mut random) } else { None };
    match message {
        Some(message) if name + message.len() <= max_size => {
            data[name..name + message.len()].copy_from_slice(&message);
            name + message.len()
        }
        _ => name + fuzzer_mutate(&mut data[name..], size - name, max_size - name),
    }
});

/// The message of an input with another field; nothing where it is no message.
fn mutated(input: &[u8], name: usize, random: &mut SmallRng) -> Option<Vec<u8>> {
    let rpc = str::from_utf8(&input[..name]).ok()?.trim_end();
    let mut rpcs = POOL.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let descriptor = rpcs.find(|method| method.name() == rpc)?.input();
    let mut message = DynamicMessage::decode(descriptor, &input[name..]).ok()?;
    mutate(&mut message, random);
    Some(message.encode_to_vec())
}

fn mutate(message: &mut DynamicMessage, random: &mut SmallRng) {
    let fields: Vec<_> = message.descriptor().fields().collect();
    let Some(field) = fields.choose(random) else { return };
    if random.random_ratio(1, 8) {
        message.clear_field(field);
    } else {
        mutate_value(message.get_field_mut(field), &field.kind(), random);
    }
}

fn mutate_value(value: &mut Value, kind: &Kind, random: &mut SmallRng) {
    match value {
        Value::Message(message) => mutate(message, random),
        Value::List(list) if list.is_empty() || random.random_ratio(1, 4) => {
            let mut element = Value::default_value(kind);
            mutate_value(&mut element, kind, random);
            list.push(element);
        }
        Value::List(list) if random.random_ratio(1, 4) => drop(list.swap_remove(random.random_range(..list.len()))),
        Value::List(list) => {
            if let Some(element) = list.choose_mut(random) {
                mutate_value(element, kind, random);
            }
        }
        Value::String(text) => {
            let mut bytes = text.clone().into_bytes();
            let (size, room) = (bytes.len(), bytes.len() + ROOM);
            bytes.resize(room, 0);
            let size = fuzzer_mutate(&mut bytes, size, room);
            *text = String::from_utf8_lossy(&bytes[..size]).into_owned();
        }
        Value::Bool(flag) => *flag = !*flag,
        Value::I32(number) | Value::EnumNumber(number) => {
            *number = if random.random() { random.random_range(-1..10) } else { random.random() };
        }
        Value::I64(number) => *number = if random.random() { random.random_range(-1..10) } else { random.random() },
        _ => {}
    }
}
