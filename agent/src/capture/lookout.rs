//! A thread that looks every so often, and what it hands over. Slow looks are its own affair: nobody waits for them.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

/// The thread. Dropping this ends it, after the look that it is at; that is not waited for.
pub(super) struct Lookout(#[expect(dead_code, reason = "dropping it is what tells the thread")] Sender<()>);

impl Lookout {
    /// Calls `look` every so often from now on, the first time after the first pause.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn start(name: &str, every: Duration, mut look: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (lookout, ended) = channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                look();
            }
        })?;
        Ok(Self(lookout))
    }
}

/// Something new, until it is taken; what is newer replaces it.
#[derive(Debug)]
pub(super) struct News<T>(Arc<Mutex<Option<T>>>);

impl<T> News<T> {
    pub(super) fn put(&self, news: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
    }

    /// Never waits for a look.
    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Default for News<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// The other end of the same.
impl<T> Clone for News<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_until_it_is_dropped_and_the_newest_is_handed_over_once() {
        let news = News::default();
        let (of_thread, (looked, looks)) = (news.clone(), channel());
        let mut count = 0;
        let lookout = Lookout::start("test", Duration::from_millis(1), move || {
            count += 1;
            of_thread.put(count);
            // The test may be over.
            let _ended = looked.send(());
        })
        .unwrap();
        assert_eq!((looks.recv(), looks.recv()), (Ok(()), Ok(())));
        drop(lookout);
        // What the thread held goes with it.
        while looks.recv().is_ok() {}
        assert!(news.take() >= Some(2));
        assert_eq!(news.take(), None);
    }
}
