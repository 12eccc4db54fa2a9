//! The shelf: what is used again, and what is dropped.

use std::time::Duration;

use py_shared::{Shelf, Taken};

const KB: usize = 1 << 10;

#[test]
fn what_was_put_back_is_used_again() {
    let mut shelf = Shelf::new(KB * KB);
    let Taken { id, segment, new } = shelf.take(70_000).unwrap();
    assert!(new);
    segment.write_at(0, b"kept").unwrap();
    assert_eq!(shelf.take(70_000).unwrap().id, id + 1);
    assert!(shelf.put(id).is_empty());

    assert!(shelf.take(1).unwrap().new, "another size");
    let again = shelf.take(100_000).unwrap();
    assert_eq!((again.id, again.new), (id, false));
    let mut bytes = [0; 4];
    again.segment.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    assert_eq!(shelf.kept(), 0);
}

#[test]
fn what_is_removed_is_not_used_again() {
    let mut shelf = Shelf::new(KB * KB);
    let free = shelf.take(1).unwrap().id;
    let taken = shelf.take(1).unwrap().id;
    shelf.put(free);
    shelf.remove(taken);
    shelf.remove(free);
    assert!(shelf.put(taken).is_empty());
    assert_eq!(shelf.take(1).unwrap().id, free);
    assert!(shelf.take(1).unwrap().new);
}

#[test]
fn the_one_that_was_used_last_comes_first() {
    let mut shelf = Shelf::new(KB * KB);
    let ids = [(); 3].map(|()| shelf.take(1).unwrap().id);
    for id in [ids[1], ids[2], ids[0]] {
        shelf.put(id);
    }
    assert_eq!([(); 3].map(|()| shelf.take(1).unwrap().id), [ids[0], ids[2], ids[1]]);
}

#[test]
fn a_full_shelf_drops_what_was_not_used_for_the_longest() {
    let mut shelf = Shelf::new(320 * KB);
    let small = shelf.take(64 * KB).unwrap();
    let large = shelf.take(256 * KB).unwrap().id;
    assert!(shelf.put(small.id).is_empty());
    assert!(shelf.put(large).is_empty());
    assert_eq!(shelf.kept(), 320 * KB);
    let third = shelf.take(128 * KB).unwrap().id;
    assert_eq!(shelf.put(third), [small.id, large]);
    assert!(shelf.get(small.id).is_none());
    assert_eq!(shelf.kept(), 128 * KB);
    small.segment.write_at(0, b"who has it keeps it").unwrap();
    let huge = shelf.take(KB * KB).unwrap().id;
    assert_eq!(shelf.put(huge), [third, huge], "one that never fits is not kept");
    assert_eq!(shelf.kept(), 0);
}

#[test]
fn a_number_counts_once() {
    let mut shelf = Shelf::new(KB * KB);
    let id = shelf.take(1).unwrap().id;
    assert!(shelf.put(id + 1).is_empty());
    shelf.put(id);
    shelf.put(id);
    assert_eq!(shelf.kept(), 64 * KB);
    assert_eq!(shelf.take(1).unwrap().id, id);
    assert!(shelf.take(1).unwrap().new);
}

#[test]
fn what_is_idle_is_dropped() {
    let mut shelf = Shelf::new(KB * KB);
    let used = shelf.take(1).unwrap().id;
    let free = shelf.take(1).unwrap().id;
    shelf.put(free);
    assert!(shelf.drop_idle(Duration::from_secs(3600)).is_empty());
    assert_eq!(shelf.drop_idle(Duration::ZERO), [free]);
    assert!(shelf.get(used).is_some() && shelf.get(free).is_none());
    assert_eq!(shelf.kept(), 0);
}
