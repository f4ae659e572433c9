// Search in pages that are opened from a file: browsers start no worker there, and the theme's
// search lives in one. Here it lives in a hidden frame instead, behind the same few methods.
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open();
      inside.document.write("<!DOCTYPE html><body></body>");
      inside.document.close();
      const script = inside.document.createElement("script");
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
      inside.importScripts = (...urls) => Promise.all(urls.map(each => new Promise((done, failed) => {
        const one = inside.document.createElement("script");
        Object.assign(one, {src: each, onload: done, onerror: failed});
        inside.document.body.append(one);
      })));
      this.ready = new Promise(done => { script.onload = done; });
      script.src = url;
      inside.document.body.append(script);
    }

    postMessage(data) {
      this.ready.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data})));
    }

    terminate() { this.frame.remove(); }
  };
}
