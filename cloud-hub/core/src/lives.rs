//! Which life of a device's state speaks, and whether what it says is news.
//!
//! A life's number is a clock reading, and clocks run back: a wiped device whose clock is behind begins a life with a
//! lower number than the one before. So lives stand in the order in which they were first heard, not in that of their
//! numbers. A life that another has followed is over: what still comes from it is late, or its state was copied or set
//! back, and neither may hide what the device runs now.

use tributary_wire::Incarnation;

/// What was last heard of a life: which one, and the number of its report.
pub type Heard = (Incarnation, u64);

/// What a report is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The life that spoke last goes on.
    GoesOn,
    /// A life that was never heard of before; the one before it is over.
    Begins,
    /// It was overtaken by a newer one of the same life, or says what was heard before its life was over.
    Late,
    /// A life that is over says something new: its state was copied or set back.
    Returns,
}

impl Verdict {
    /// Whether the report says what the device runs now.
    pub fn is_news(self) -> bool {
        matches!(self, Self::GoesOn | Self::Begins)
    }
}

/// Judges a report by what was heard last of the device, and by the last number heard of the life that the report comes
/// from, if that is over.
pub fn judge(last: Option<Heard>, over: Option<u64>, (life, number): Heard) -> Verdict {
    match (last, over) {
        (Some((current, known)), _) if current == life && known < number => Verdict::GoesOn,
        (Some((current, _)), _) if current == life => Verdict::Late,
        (_, Some(known)) if known < number => Verdict::Returns,
        (_, Some(_)) => Verdict::Late,
        (_, None) => Verdict::Begins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_stand_in_the_order_in_which_they_were_heard() {
        let life = |number, report| (Incarnation(number), report);
        assert_eq!(judge(None, None, life(7, 1)), Verdict::Begins);
        assert_eq!(judge(Some(life(7, 1)), None, life(7, 2)), Verdict::GoesOn);
        assert_eq!(judge(Some(life(7, 2)), None, life(7, 2)), Verdict::Late);
        for wiped in [3, 9] {
            assert_eq!(judge(Some(life(7, 2)), None, life(wiped, 1)), Verdict::Begins, "{wiped} after 7");
            assert_eq!(judge(Some(life(wiped, 1)), Some(2), life(7, 2)), Verdict::Late, "7 after {wiped}");
            assert_eq!(judge(Some(life(wiped, 1)), Some(2), life(7, 3)), Verdict::Returns, "7 after {wiped}");
        }
    }
}
