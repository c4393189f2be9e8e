//! The ring of records.

use tributary_node::Store;

fn get(store: &Store<'_>, number: u32) -> Option<Vec<u8>> {
    let mut out = [0; 64];
    store.get(number, &mut out).map(|length| out[..length].to_vec())
}

#[test]
fn records_come_back_whole_across_the_ring_s_end_and_overwrites_are_counted() {
    let mut memory = [0; 50];
    let mut store = Store::new(&mut memory);
    let record = |number: u32| vec![number as u8; number as usize % 9];
    for number in 1..=500 {
        store.push(&record(number));
        for kept in store.oldest()..=number {
            assert_eq!(get(&store, kept), Some(record(kept)), "{kept} after {number}");
        }
        assert_eq!(get(&store, number + 1), None);
        assert_eq!(store.overwritten() + store.len(), number);
    }
    store.release(499);
    assert_eq!((store.oldest(), store.len()), (499, 2));
    store.release(9999);
    assert!(store.is_empty());
    assert_eq!((store.oldest(), get(&store, 501)), (501, None));
    store.push(&[7]);
    assert_eq!(get(&store, 501), Some(vec![7]));
}

#[test]
fn a_record_larger_than_the_memory_is_counted_and_its_number_stays_empty() {
    let mut memory = [0; 8];
    let mut store = Store::new(&mut memory);
    store.push(&[1, 2]);
    store.push(&[0; 9]);
    assert_eq!((store.oldest(), store.overwritten(), get(&store, 2)), (2, 2, Some(vec![])));
}
