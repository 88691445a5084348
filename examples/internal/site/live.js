// Shows immediately when the session of this page has ended, without a reload.
// Without JavaScript the next click shows it.
"use strict";

let events;

function watch() {
  if (document.hidden || events) return;
  const url = "/events?session=" + encodeURIComponent(document.body.dataset.session);
  events = new EventSource(url);
  events.addEventListener("ended", showEnded);
  events.addEventListener("error", async () => {
    // The browser reconnects by itself after a connection that broke. It does not after
    // 204, which means that the session has ended, or after an error of the server.
    if (events?.readyState !== EventSource.CLOSED) return;
    events = null;
    const asking = new AbortController();
    const status = await fetch(url, { signal: asking.signal }).then((r) => r.status, () => 0);
    asking.abort(); // closes the response if it is a stream
    if (status === 204) showEnded();
    else setTimeout(watch, 5000);
  });
}

function unwatch() {
  events?.close();
  events = null;
}

function showEnded() {
  unwatch();
  document.removeEventListener("visibilitychange", change);
  const main = document.querySelector("main");
  main.className = "narrow";
  main.replaceChildren(document.querySelector("#ended").content);
  document.querySelector("header form").remove();
  document.title = "Signed out – Coat check";
}

// A browser has six connections to a host over HTTP/1.1: a hidden tab must not keep one.
function change() {
  if (document.hidden) unwatch();
  else watch();
}

document.addEventListener("visibilitychange", change);
watch();

// A page that the back button restores from the browser's memory may be from before the
// logout: it stays hidden and is loaded again.
addEventListener("pagehide", () => { document.documentElement.hidden = true; });
addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
