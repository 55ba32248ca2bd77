//! Protobuf over gRPC, strict about what comes in: a message that is too large or does not parse, or a second one where
//! there can be only one, is the sender's mistake and is called so, with a reason a program can read.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::{ProstCodec, ProstEncoder};
use tonic_types::{ErrorDetails, StatusExt};

/// The largest message accepted, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The domain in every `google.rpc.ErrorInfo` that stockd sends.
pub const ERROR_DOMAIN: &str = "stockd";

/// A message that calls send or answer. The build says it of each, as the schema has it.
pub trait Counted {
    /// Whether one call may bring several: it is part of a stream.
    const MAY_BE_MANY: bool;
}

/// The codec of every generated client and server.
#[derive(Debug, Clone)]
pub struct StrictCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Counted + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder {
            has_decoded: false,
            message: PhantomData,
        }
    }
}

/// Decodes the messages of one call, or says what is wrong with them.
#[derive(Debug)]
pub struct StrictDecoder<U> {
    has_decoded: bool,
    message: PhantomData<U>,
}

impl<U: Message + Default + Counted> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The transport takes the first message of a call that takes one, and looks for what follows before the call
        // begins. It would drop what it finds.
        if self.has_decoded && !U::MAY_BE_MANY {
            return Err(refused(
                "MESSAGE_NOT_ALONE",
                "a second message came where there can be only one".to_owned(),
            ));
        }
        self.has_decoded = true;
        let length = buffer.remaining();
        if length > MESSAGE_BYTES_MAX {
            return Err(refused(
                "MESSAGE_TOO_LARGE",
                format!("the message has {length} bytes; at most {MESSAGE_BYTES_MAX} are accepted"),
            ));
        }
        U::decode(buffer)
            .map(Some)
            .map_err(|error| refused("MESSAGE_MALFORMED", error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

fn refused(reason: &str, message: String) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    Status::with_error_details(Code::InvalidArgument, message, details)
}
