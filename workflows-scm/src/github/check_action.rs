//! The buttons of check runs.

/// What a button of a check run asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckAction {
    /// Approve the head of this pull request: of one from a fork, the host does not say which it is.
    Approve {
        /// Its number.
        pull_request: u64,
    },
    /// End the run.
    Cancel,
    /// Run it again.
    Rerun,
}

impl CheckAction {
    /// As the `identifier` of the button, which has room for 20 characters
    /// (<https://docs.github.com/en/rest/checks/runs#create-a-check-run>); `None` when the number is
    /// too long.
    pub(crate) fn identifier(self) -> Option<String> {
        let text = match self {
            Self::Approve { pull_request } => format!("approve:{pull_request}"),
            Self::Cancel => "cancel".to_owned(),
            Self::Rerun => "rerun".to_owned(),
        };
        (text.len() <= 20).then_some(text)
    }

    /// What an identifier stands for; `None` when it is another program's.
    pub(crate) fn parse(identifier: &str) -> Option<Self> {
        match identifier {
            "cancel" => Some(Self::Cancel),
            "rerun" => Some(Self::Rerun),
            _ => {
                let pull_request = identifier.strip_prefix("approve:")?.parse().ok()?;
                Some(Self::Approve { pull_request })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_button_says_is_understood_when_it_is_pressed() {
        for action in
            [CheckAction::Approve { pull_request: 7 }, CheckAction::Cancel, CheckAction::Rerun]
        {
            assert_eq!(CheckAction::parse(&action.identifier().unwrap()), Some(action));
        }
        assert_eq!(CheckAction::Approve { pull_request: u64::MAX }.identifier(), None);
        for other in ["", "approve", "approve:", "approve:x", "fix_it", "approve:-1"] {
            assert_eq!(CheckAction::parse(other), None, "{other:?}");
        }
    }
}
