//! Which partition a group is in.

use super::partition_of;

#[test]
fn a_group_is_in_the_partition_that_kafkas_hash_gives() {
    // "a" is 97, "ab" is 97 * 31 + 98; the others were worked out with another program.
    for (group, partition) in [
        ("", 0),
        ("a", 97 % 16),
        ("ab", 3105 % 16),
        ("my-consumer-group", 9),
        ("console-consumer-12345", 2),
        // The least hash there is, which counts as 0.
        ("polygenelubricants", 0),
        // Outside of the basic plane: two units.
        ("\u{1fab5}", (0xd83e * 31 + 0xdeb5) % 16),
        // A negative hash.
        ("invoice-writer", 13),
    ] {
        assert_eq!(partition_of(&group.into(), 16), partition, "{group:?}");
    }
}
