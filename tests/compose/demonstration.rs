//! The one command of the documentation.

use crate::support::stack::Stack;

#[test]
fn the_load_generator_shows_a_comparison() {
    let stack = Stack::new();
    let said = stack.compose(&["run", "--rm", "-T", "load"]);
    for shown in ["least_request", "paceline", "p99", "to h100-1", "to a40-1"] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    let row = |name: &str| -> Vec<u64> {
        let line = said.lines().find(|line| line.contains(name)).unwrap();
        let cells = line.split('│').filter_map(|cell| cell.trim().parse().ok());
        cells.collect()
    };
    // Of 200, a tenth is warm-up.
    assert_eq!(row("requests"), [180, 180]);
    assert_eq!(row("errors"), [0, 0]);
    assert_eq!(row("rejects"), [0, 0]);
    println!("{said}");
}
