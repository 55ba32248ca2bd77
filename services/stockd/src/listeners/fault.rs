//! What ends a call before the API has seen it, or after it has answered.

use tonic::Status;

/// Why. `api/error.rs` says it to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The prefix of a message announces more bytes than a message may have.
    MessageTooLarge {
        /// So many.
        bytes: usize,
    },
    /// A call takes one message, and another one has come.
    SeveralMessages,
    /// A message has begun, or is to come, and too little of it comes.
    SenderSilent,
    /// The deadline came before the whole request.
    LateRequest,
    /// The deadline came while the call was carried out.
    Late,
    /// The calls of this connection, or of all, hold as many bytes as they may.
    NoRoom,
    /// So they did when the answer was there.
    NoRoomForAnswer,
    /// The answer is not taken. That is told to nobody: who does not read does not hear.
    ReaderSilent,
}

impl Fault {
    /// Counts it. Returns what the caller is told.
    pub(crate) fn tell(self) -> Status {
        self.count();
        Status::from(self)
    }

    /// Counts it.
    pub(super) fn count(self) {
        metrics::counter!("stockd_calls_ended_total", "why" => self.as_str()).increment(1);
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::MessageTooLarge { .. } => "message_too_large",
            Self::SeveralMessages => "several_messages",
            Self::SenderSilent => "sender_silent",
            Self::LateRequest | Self::Late => "late",
            Self::NoRoom => "no_room",
            Self::NoRoomForAnswer => "no_room_for_answer",
            Self::ReaderSilent => "reader_silent",
        }
    }
}
