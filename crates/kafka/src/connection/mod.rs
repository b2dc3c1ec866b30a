//! One connection: a half that reads requests and a half that writes answers, in one task.
//!
//! The reading half takes a frame, runs the request's first stage (for a produce: it is appended; for
//! a fetch: nothing yet; for the others: everything) and puts the reply into a queue. The writing
//! half takes replies in the order of the requests and awaits their second stage. So produces are
//! sequenced while earlier ones wait for their sync, and a fetch reads when its turn has come: what
//! a client does not take is not read for it.

mod disconnect;
mod frames;
mod info;
mod pipeline;

use std::{future::poll_fn, io, pin::pin, sync::Arc, task::Poll, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::timeout,
};

pub(crate) use disconnect::{Disconnect, Mistakes};
pub(crate) use frames::FRAME_BYTES_MIN;
pub(crate) use info::Connection;
pub use info::{Advertised, ConnectionInfo};

use crate::{
    KafkaOptions,
    dispatch::{self, Reply},
    kafka::Shared,
};
use frames::{Frame, Frames};
use pipeline::{Item, Outgoing, Pipeline};

/// Answers that are there are put together up to this many bytes before they are written.
const GATHER_BYTES: usize = 64 << 10;
/// Parts of answers in one system call.
const SLICES_MAX: usize = 64;
/// Requests, and bytes of them, that are taken before answers get a turn, while there are more.
const TURN_REQUESTS: usize = 16;
const TURN_BYTES: usize = 256 << 10;
/// How long earlier requests of a connection that is closed, by its client or for a mistake, may take
/// to be answered, and how long a client may take to hang up after its last answer.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs a connection to its end, and says in the log why it ended where somebody should know.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    mut stream: TcpStream,
    info: ConnectionInfo,
    stop: watch::Receiver<bool>,
) {
    let connection = match Connection::new(info, stream.local_addr()) {
        Ok(connection) => Arc::new(connection),
        // The client is gone already.
        Err(_) => return,
    };
    let end = run(shared, &connection, &mut stream, stop).await;
    let now = shared.broker.environment().clock.elapsed();
    shared.mistakes.tell(&connection, &end, now);
    if matches!(end, Disconnect::Stopped) {
        // Closing with unread requests would reset the connection, and with it the last answers.
        let _ = timeout(FAREWELL, hang_up(&mut stream)).await;
    }
}

async fn run(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    stream: &mut TcpStream,
    stop: watch::Receiver<bool>,
) -> Disconnect {
    let options = &shared.options;
    let pipeline = Pipeline::new(options.requests_in_flight_max, options.response_bytes_max);
    let (reader, writer) = stream.split();
    let read = read_requests(shared, connection, reader, &pipeline, stop);
    let mut write = pin!(write_answers(writer, &pipeline, options));
    let end = tokio::select! {
        // The queue relies on this order.
        biased;
        end = read => end,
        end = &mut write => return end.expect_err("it ends well only when the queue is closed"),
    };
    pipeline.close();
    let written = match &end {
        Disconnect::Stopped => Some(write.await),
        // A client that closed may have closed only its own side.
        Disconnect::Closed => timeout(FAREWELL, write).await.ok(),
        end if end.is_mistake() => timeout(FAREWELL, write).await.ok(),
        // There is nobody to write to.
        _ => None,
    };
    match written {
        Some(Err(error)) if matches!(end, Disconnect::Stopped) => error,
        _ => end,
    }
}

/// Takes requests in and runs their first stages, until the connection ends.
async fn read_requests(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    stream: ReadHalf<'_>,
    pipeline: &Pipeline,
    stop: watch::Receiver<bool>,
) -> Disconnect {
    let budget = shared.broker.budget();
    let mut frames = Frames::new(
        stream,
        stop,
        pipeline,
        &shared.options,
        &shared.buffers,
        budget,
    );
    let (mut requests, mut bytes) = (0, 0);
    loop {
        pipeline.room().await;
        let Frame {
            bytes: frame,
            permit,
        } = match frames.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Disconnect::Stopped,
            Err(end) => return end,
        };
        requests += 1;
        bytes += frame.len();
        let (context, reply) = match dispatch::dispatch(shared, connection, frame).await {
            Ok(dispatched) => dispatched,
            Err(end) => return end,
        };
        // Nothing of the frame is held any more.
        drop(permit);
        match reply {
            Reply::None => context.answered(),
            reply => pipeline.push(Item { context, reply }),
        }
        if requests >= TURN_REQUESTS || bytes >= TURN_BYTES {
            (requests, bytes) = (0, 0);
            give_way().await;
        }
    }
}

/// Lets the other half of the connection run, and other connections on this thread.
async fn give_way() {
    let mut has_given_way = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_given_way, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Writes answers in the order of the requests, until the queue is closed and empty.
async fn write_answers(
    stream: WriteHalf<'_>,
    pipeline: &Pipeline,
    options: &KafkaOptions,
) -> Result<(), Disconnect> {
    let mut outgoing = Outgoing::default();
    let mut front = None;
    while gather(pipeline, &mut front, &mut outgoing).await? {
        while !outgoing.is_empty() {
            let mut slices = [io::IoSlice::new(&[]); SLICES_MAX];
            let count = outgoing.slices(&mut slices);
            match stream.try_write_vectored(&slices[..count]) {
                Ok(written) => outgoing.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = timeout(options.idle_timeout, stream.writable()).await;
                    writable.map_err(|_elapsed| Disconnect::NotRead)??;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let (requests, bytes) = (outgoing.requests, outgoing.reply_bytes);
        outgoing = Outgoing::default();
        pipeline.answered(requests, bytes);
    }
    Ok(())
}

/// Waits for answers and takes those that are there; false when none will come. `front` is the
/// request whose turn it is, if its answer is not there yet.
async fn gather(
    pipeline: &Pipeline,
    front: &mut Option<Item>,
    outgoing: &mut Outgoing,
) -> Result<bool, Disconnect> {
    poll_fn(|context| {
        loop {
            if outgoing.bytes() >= GATHER_BYTES {
                return Poll::Ready(Ok(true));
            }
            if front.is_none() {
                match pipeline.poll_next() {
                    Poll::Ready(Some(item)) => *front = Some(item),
                    _ if !outgoing.is_empty() => return Poll::Ready(Ok(true)),
                    Poll::Ready(None) => return Poll::Ready(Ok(false)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let Some(item) = front else { continue };
            let reply_bytes = item.reply.bytes();
            match item.reply.poll(context) {
                Poll::Ready(Ok(answer)) => {
                    item.context.answered();
                    outgoing.push(answer);
                    outgoing.requests += 1;
                    outgoing.reply_bytes += reply_bytes;
                    *front = None;
                }
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending if !outgoing.is_empty() => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Ends our side and waits for the client to end its own.
async fn hang_up(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
