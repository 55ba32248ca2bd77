//! Protobuf over gRPC, strict about what comes in: a message that is too large, does not parse or
//! holds more than is known is its sender's concern and is called so, with a reason a program can
//! read.

use std::marker::PhantomData;

use bytes::Buf;
use prost::{DecodeError, Message};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::stock::v1::ErrorReason;
use crate::whole::{self, Whole};

/// The largest message accepted, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The domain in every `google.rpc.ErrorInfo` that stockd sends.
pub const ERROR_DOMAIN: &str = "stockd";

/// The codec of every generated client and server.
#[derive(Debug, Clone)]
pub struct StrictCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Whole + Send + 'static,
{
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Whole + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = StrictEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        StrictEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(PhantomData)
    }
}

/// Encodes one message, into just as much memory as it takes.
#[derive(Debug)]
pub struct StrictEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for StrictEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// Decodes one message, or says what is wrong with it.
#[derive(Debug)]
pub struct StrictDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Whole> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let length = buffer.remaining();
        if length > MESSAGE_BYTES_MAX {
            return Err(too_large(length));
        }
        // It is in one piece: it was waited for until it was there.
        whole::check::<U>(buffer.chunk())?;
        U::decode(buffer).map(Some).map_err(malformed)
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// Reads a request that came inside another message.
///
/// # Errors
///
/// What the whole message would have been refused with.
pub fn read<M: Message + Default + Whole>(message: &[u8]) -> Result<M, Status> {
    whole::check::<M>(message)?;
    M::decode(message).map_err(malformed)
}

/// What each direction of a call begins with: most messages are smaller. For one that is larger the
/// transport makes room once its length is known.
const BUFFER_BYTES: usize = 1024;

/// Messages that are ready together leave together up to this, as tonic has it.
const TOGETHER_BYTES: usize = 32 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, TOGETHER_BYTES)
}

/// What is said of a message with so many bytes, more than [`MESSAGE_BYTES_MAX`].
pub fn too_large(bytes: usize) -> Status {
    refused(
        ErrorReason::MessageTooLarge,
        format!("the message has {bytes} bytes; at most {MESSAGE_BYTES_MAX} are accepted"),
    )
}

fn malformed(error: DecodeError) -> Status {
    refused(ErrorReason::MessageMalformed, error.to_string())
}

fn refused(reason: ErrorReason, message: String) -> Status {
    let details = ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, []);
    Status::with_error_details(Code::InvalidArgument, message, details)
}
