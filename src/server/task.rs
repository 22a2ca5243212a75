//! The task of each call, which a guard may end.

use std::{cell::RefCell, future::poll_fn, pin::pin, task::Poll};

use futures_util::{FutureExt as _, future::BoxFuture};
use hyper::rt::Executor;
use tokio::task_local;

use crate::trace;

task_local! {
    /// Ends the task's call when it is ready.
    static GUARD: RefCell<Option<BoxFuture<'static, ()>>>;
}

/// Has the call of this task ended when the guard is ready, and its stream reset. The body of its answer cannot do
/// that: it is not polled while the peer opens no window.
pub fn guard(guard: impl Future<Output = ()> + Send + 'static) {
    // Without such a task there is no connection, as in the tests of the layers.
    let _ = GUARD.try_with(|place| place.replace(Some(guard.boxed())));
}

/// A task for each call, which its guard may end.
#[derive(Clone)]
pub struct Tasks;

impl<C: Future<Output = ()> + Send + 'static> Executor<C> for Tasks {
    fn execute(&self, call: C) {
        tokio::spawn(trace::of_one_call(GUARD.scope(RefCell::default(), async {
            let mut call = pin!(call);
            let end = poll_fn(|context| match call.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => GUARD.with(|guard| match &mut *guard.borrow_mut() {
                    Some(guard) => guard.poll_unpin(context),
                    None => Poll::Pending,
                }),
            });
            end.await;
        })));
    }
}
