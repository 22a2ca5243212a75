//! How names are compared. What is stored is folded by it: to change it is a migration.

use icu_casemap::CaseMapper;
use icu_properties::props::{EnumeratedProperty as _, GeneralCategory};
use unicode_normalization::UnicodeNormalization as _;

use super::text::is_left_out;

/// The longest folded text, in bytes: an index takes it on every database.
const LONGEST: usize = 400;

/// The text in compatibility decomposition (Unicode NFKD), without nonspacing marks, which all variation selectors are, and
/// without what a text of today has not; in the default case fold; cut at 400 bytes, at a character's end.
pub fn fold(text: &str) -> String {
    let mut folded = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        let bare: String = text.nfkd().filter(|c| !(is_mark(*c) || is_left_out(*c))).collect();
        // Where a mark stood between spacing marks, their order is now another.
        CaseMapper::new().fold_string(&bare).nfkd().collect()
    };
    folded.truncate(folded.floor_char_boundary(LONGEST));
    folded
}

/// A person's name as it is compared: the last name before the first.
pub fn sort_name(last_name: &str, first_name: &str) -> String {
    fold(&format!("{last_name} {first_name}"))
}

fn is_mark(c: char) -> bool {
    GeneralCategory::for_char(c) == GeneralCategory::NonspacingMark
}

#[cfg(test)]
mod tests {
    use icu_properties::props::{BinaryProperty as _, VariationSelector};
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn names_that_people_take_for_the_same_are_the_same() {
        for (text, folded) in [
            ("Ada Byron", "ada byron"),
            ("M\u{fc}ller", "muller"),
            ("Mu\u{308}ller", "muller"),
            ("M\u{dc}LLER", "muller"),
            ("Stra\u{df}e", "strasse"),
            ("STRA\u{1e9e}E", "strasse"),
            ("\u{c5}ngstr\u{f6}m", "angstrom"),
            ("\u{212b}ngstr\u{f6}m", "angstrom"),
            ("\u{130}pek", "ipek"),
            ("I\u{15f}\u{131}k", "is\u{131}k"), // the dotless i is a letter of its own
            ("\u{39f}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3ad}\u{3c2}", "\u{3bf}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3b5}\u{3c3}"),
            ("\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a3}", "\u{3bf}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3b5}\u{3c3}"),
            ("S\u{d8}REN", "s\u{f8}ren"),
            ("\u{141}ukasz", "\u{142}ukasz"),
            ("\u{110}or\u{111}e", "\u{111}or\u{111}e"),
            ("\u{c6}sir", "\u{e6}sir"),
            ("O\u{fb03}ce", "office"),
            ("\u{fb01}nn", "finn"),
            ("\u{ff21}\u{ff24}\u{ff21}\u{3000}\u{ff22}", "ada b"),
            ("Nguy\u{1ec5}n V\u{103}n \u{110}\u{1ee9}c", "nguyen van \u{111}uc"),
            ("\u{41}\u{328}\u{301}", "a"),
            ("\u{645}\u{64f}\u{62d}\u{64e}\u{645}\u{651}\u{64e}\u{62f}", "\u{645}\u{62d}\u{645}\u{62f}"),
            ("\u{623}\u{62d}\u{645}\u{62f}", "\u{627}\u{62d}\u{645}\u{62f}"),
            ("\u{5d3}\u{5b8}\u{5bc}\u{5d5}\u{5b4}\u{5d3}", "\u{5d3}\u{5d5}\u{5d3}"),
            ("\u{44e}\u{440}\u{438}\u{439}", "\u{44e}\u{440}\u{438}\u{438}"),
            ("\u{42e}\u{420}\u{418}\u{419}", "\u{44e}\u{440}\u{438}\u{438}"),
            ("\u{ae40}", "\u{1100}\u{1175}\u{11b7}"), // so the syllable that is not yet whole finds it
            ("\u{ae30}", "\u{1100}\u{1175}"),
            ("\u{304c}", "\u{304b}"),
            ("\u{ff76}\u{ff9e}", "\u{30ab}"),
            ("\u{845b}\u{e0100}", "\u{845b}"),
            ("\u{2764}\u{fe0f}", "\u{2764}"),
            ("\u{fa19}", "\u{795e}"),
            ("\u{2167}", "viii"),
            ("Hop\u{ad}per\u{200b}", "hopper"), // of before 0.2.0, as it would be stored today
            ("\u{202e}Hop\u{feff}per\u{202c}", "hopper"),
            ("\u{6cc}\u{200c}\u{627}", "\u{6cc}\u{200c}\u{627}"), // joiners stay
            ("O\u{2019}Brien", "o\u{2019}brien"),
            ("d\u{2019}Arc-Lys", "d\u{2019}arc-lys"),
        ] {
            assert_eq!(fold(text), folded, "{text:?}");
        }
        assert_eq!(sort_name("Byron", "Ada"), "byron ada");
    }

    #[test]
    fn what_is_too_long_is_cut_at_the_end_of_a_character() {
        assert_eq!(fold(&"A".repeat(500)), "a".repeat(400));
        assert_eq!(fold(&format!("A{}", "\u{f8}".repeat(300))), format!("a{}", "\u{f8}".repeat(199)));
        assert_eq!(sort_name(&"\u{fdfa}".repeat(100), "Ada").len(), 400);
    }

    /// What is stored was folded by exactly this: another sum means that all rows have to be folded anew.
    #[test]
    fn the_fold_of_every_scalar_value_is_pinned() {
        let mut sum = Sha256::new();
        for c in '\0'..=char::MAX {
            assert!(!VariationSelector::for_char(c) || is_mark(c), "{c:?}");
            let once = fold(&c.to_string());
            assert_eq!(fold(&once), once, "{c:?}");
            assert!(!once.contains(is_mark) && !once.contains(is_left_out), "{c:?}");
            sum.update(once);
            sum.update([0xff]);
        }
        let sum = hex::encode(sum.finalize());
        insta::assert_snapshot!(sum, @"dd1599d727f58abb8c3406f02b2cc6ea20985a0ebb23aab63edcd0b9b7d596d7");
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(
            text in r"[ aA\x{301}\x{345}\x{941}\x{93e}\x{94d}\x{1b44}\x{302e}\x{130}\x{1e9e}\x{ac01}]{0,12}|\PC*",
        ) {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }

        #[test]
        fn the_beginning_of_a_name_is_the_beginning_of_its_fold(
            beginning in "[a-zA-Z\u{c0}-\u{17f}\u{386}-\u{3ce}\u{ac00}-\u{ac40} -]{0,20}",
            rest in "[\u{ac00}-\u{ac40}a-z]{0,9}",
        ) {
            let name = format!("{beginning}{rest}");
            prop_assert!(fold(&name).starts_with(&fold(&beginning)));
        }

        #[test]
        fn a_last_name_and_a_first_are_folded_alone_or_together(last in "\\PC{0,20}", first in "\\PC{0,20}") {
            prop_assert_eq!(sort_name(&last, &first), fold(&format!("{} {}", fold(&last), fold(&first))));
        }
    }
}
