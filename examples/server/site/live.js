// Tells at once when the session of this page has ended, without a reload.
// Without JavaScript the next click does.
"use strict";

function watch() {
  const events = new EventSource("/events");
  events.addEventListener("ended", () => {
    events.close();
    const main = document.querySelector("main");
    main.className = "narrow";
    main.replaceChildren(document.querySelector("#ended").content);
    document.querySelector("header form").remove();
    document.title = "Signed out – Coat check";
  });
  events.addEventListener("error", () => {
    // A connection that broke is made again by the browser; an error of the
    // server's says nothing about the session, and is not.
    if (events.readyState === EventSource.CLOSED) setTimeout(watch, 5000);
  });
}

watch();

// A page that the back button brings back out of the browser's memory may be of
// before the logout: it stays hidden, and is asked for again.
addEventListener("pagehide", () => { document.documentElement.hidden = true; });
addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
