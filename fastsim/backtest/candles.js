// Candles of one symbol at a time, out of lines and areas: plotly's basic bundle has no candles.
// `data`: dates of all bars and of some to come; by symbol `bars` ([open, high, low, close], or
// [close] alone) and `traces`, whose x are places among the dates.
// Milliseconds of a date as plotly writes it, in UTC, or of milliseconds themselves.
function timeOf(date) {
  if (typeof date === "number") return date;
  return Date.parse(/[T ]/.test(date) ? `${date.replace(" ", "T")}Z` : date);
}

function showCandles(name, data, layout, config) {
  const chart = document.getElementById(name);
  const symbols = document.getElementById(`${name}_symbol`);
  const spans = document.getElementById(`${name}_span`);
  const times = data.dates.map(timeOf);
  const gaps = times.slice(1).map((time, place) => time - times[place]).sort((a, b) => a - b);
  const half = 0.36 * (gaps[Math.floor(gaps.length / 2)] || 86400000);
  const numbers = ({ bdata }) =>
    new Float32Array(Uint8Array.from(atob(bdata), (byte) => byte.charCodeAt(0)).buffer);
  const told = (place) => (place === null ? null : data.dates[place]);

  function body(bars, rising) {
    const [open, , , close] = bars;
    const x = [], y = [];
    close.forEach((last, bar) => {
      if (Number.isNaN(last) || last >= open[bar] !== rising) return;
      const [left, right] = [times[bar] - half, times[bar] + half];
      x.push(left, right, right, left, left, null);
      y.push(open[bar], open[bar], last, last, open[bar], null);
    });
    const color = rising ? "#2e8b62" : "#cd463c";
    return { type: "scatter", mode: "lines", x, y, fill: "toself", fillcolor: color,
             line: { color, width: 1 }, hoverinfo: "skip", showlegend: false };
  }

  function wicks(bars) {
    const x = [], y = [];
    bars[3].forEach((last, bar) => {
      if (Number.isNaN(last)) return;
      x.push(times[bar], times[bar], null);
      y.push(bars[1][bar], bars[2][bar], null);
    });
    return { type: "scatter", mode: "lines", x, y, line: { color: "#566270", width: 1 },
             hoverinfo: "skip", showlegend: false };
  }

  function candles(bars) {
    const dates = data.dates.slice(0, bars[0].length);
    const close = { type: "scatter", x: dates, y: bars[bars.length - 1], name: "close",
                    line: { color: "#1d2733", width: 1.5 }, showlegend: false };
    if (bars.length === 1) return [{ ...close, mode: "lines", hovertemplate: "%{y:.6~g}" }];
    const customdata = Array.from(bars[0], (open, bar) => [open, bars[1][bar], bars[2][bar]]);
    const hovertemplate = "%{y:.6~g} (open %{customdata[0]:.6~g}, high %{customdata[1]:.6~g}, " +
                          "low %{customdata[2]:.6~g})";
    const spoken = { ...close, mode: "markers", marker: { opacity: 0 }, customdata, hovertemplate };
    return [wicks(bars), body(bars, true), body(bars, false), spoken];
  }

  function range() {
    const first = spans.value === "all" ? 0 : Math.max(0, data.bars - Number(spans.value));
    return [times[first] - 2 * half, times[times.length - 1] + 2 * half];
  }

  function prices([low, high]) {
    const bars = data.symbols[symbols.value].bars.map(numbers);
    let [least, most] = [Infinity, -Infinity];
    bars[0].forEach((_, bar) => {
      if (times[bar] < low || times[bar] > high) return;
      bars.forEach((values) => {
        if (Number.isNaN(values[bar])) return;
        least = Math.min(least, values[bar]);
        most = Math.max(most, values[bar]);
      });
    });
    const room = 0.15 * (most - least) || 0.05 * most;
    return most >= least ? [least - room, most + room] : undefined;
  }

  let busy = false;
  async function fitPrices(changed) {
    if (busy || !Object.keys(changed || {}).some((key) => key.startsWith("xaxis."))) return;
    busy = true;
    const seen = chart.layout.xaxis.range.map(timeOf);
    const fitted = prices(seen);
    if (fitted) await Plotly.relayout(chart, { "yaxis.range": fitted });
    busy = false;
  }

  async function draw() {
    const { bars, traces } = data.symbols[symbols.value];
    const all = data.dates.slice(0, data.bars);
    const lines = traces.map((trace) => ({ ...trace, x: trace.x === "all" ? all : trace.x.map(told) }));
    const behind = lines.filter((trace) => trace.meta === "behind");
    const before = lines.filter((trace) => trace.meta !== "behind");
    const seen = range();
    const shown = structuredClone(layout);
    shown.xaxis.range = seen;
    shown.yaxis.range = prices(seen);
    await Plotly.react(chart, [...behind, ...candles(bars.map(numbers)), ...before], shown, config);
  }

  symbols.addEventListener("change", draw);
  spans.addEventListener("change", draw);
  draw().then(() => {
    chart.on("plotly_relayout", fitPrices);
    chart.on("plotly_doubleclick", () => { spans.value = "all"; draw(); return false; });
  });
}
