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
