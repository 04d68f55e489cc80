"use strict";
// Names that users gave become text nodes only. The colors are those of jaxfit's figures (Okabe and Ito).
const ORANGE = "#e69f00", INKS = { 1: "#0072b2", 2: "#56b4e9", 3: "#d55e00", 4: "#cc79a7", 5: "#009e73", 6: "#8a8a8a", 7: ORANGE }; // by status
const VIRIDIS = ["#fde725", "#addc30", "#5ec962", "#28ae80", "#21918c", "#2c728e", "#3b528b", "#472d7b", "#440154"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const run = (...all) => all.forEach((f) => f());
const span = (n) => [...Array(n).keys()];
const SVG = /^(svg|path|circle|text|title)$/;

function make(tag, attrs, ...kids) {
	const node = SVG.test(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
	for (const [name, value] of Object.entries(attrs || {})) {
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else if (value !== false) node.setAttribute(name, value === true ? "" : value);
	}
	node.append(...kids.flat().filter(Boolean));
	return node;
}
const div = (name, ...kids) => make("div", { class: name }, ...kids);
const button = (words, onclick, id = false) => make("button", { type: "button", id, onclick }, words);
const swatch = (color, words) => make("span", {}, make("span", { class: "swatch", style: `background:${color}` }), words);
const heading = (words) => make("h2", {}, words);
const copied = (words, text) => button(words, async (e) => {
	await navigator.clipboard.writeText(text());
	e.target.textContent = "Copied";
	setTimeout(() => (e.target.textContent = words), 1200);
});
const facts = (rows) => make("dl", { class: "facts" }, rows.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]).flat());
const side = (left) => ({ class: left ? "left" : "" });
const cells = (row, left = []) => row.map((c, i) => make("td", side(left[i]), c));
const table = (head, rows, left = []) => div("scroll", make("table", {},
	make("thead", {}, make("tr", {}, head.map((c, i) => make("th", side(left[i]), c)))), make("tbody", {}, rows)));

// Numbers as people read them.
const power = (n) => (n < 0 ? "⁻" : "") + [...String(Math.abs(n))].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join("");
function show(x, digits = 5, powers = false) {
	if (!Number.isFinite(x)) return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "−∞";
	const size = Math.abs(x);
	if (powers || (size && (size < 1e-4 || size >= 1e6) && !(Number.isInteger(x) && size < 1e9))) {
		const [front, n] = x.toExponential(digits - 1).split("e");
		const factor = String(Number(front)).replace("-", "−") + "×";
		return factor.replace(/^(−?)1×/, "$1") + "10" + power(Number(n));
	}
	return (Number.isInteger(x) ? x : Number(x.toPrecision(digits))).toLocaleString("en-US", { maximumFractionDigits: 12 }).replace("-", "−");
}

async function unpack(text) {
	const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
	const raw = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
	let at = 4 + new DataView(raw).getUint32(0, true);
	const header = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 4, at - 4))), columns = {};
	for (const { name, kind, count } of header.columns) {
		if (kind === "u1") columns[name] = new Uint8Array(raw, at, count);
		else {
			const planes = new Uint8Array(raw, at, 4 * count), words = new Uint32Array(count);
			for (let i = 0, word = 0; i < count; i++) {
				word += planes[i] | (planes[i + count] << 8) | (planes[i + 2 * count] << 16) | (planes[i + 3 * count] << 24);
				words[i] = word >>>= 0;
			}
			columns[name] = kind === "f4" ? new Float32Array(words.buffer) : new Int32Array(words.buffer);
		}
		at += count * Number(kind[1]);
	}
	return [header, columns];
}

// A scale is {low, high, log}.
function scale(arrays, log, room = 0) {
	let low = Infinity, high = -Infinity;
	for (const array of arrays) {
		for (const x of array) {
			if (!Number.isFinite(x) || (log && x <= 0)) continue;
			if (x < low) low = x;
			if (x > high) high = x;
		}
	}
	if (low > high) [low, high] = log ? [0.1, 1] : [0, 1];
	else if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
	const wide = log ? (high / low) ** room : room * (high - low);
	return log ? { low: low / wide, high: high * wide, log } : { low: low - wide, high: high + wide, log };
}
const part = (x, { low, high, log }) => (log ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low));
const spans = (array) => {
	const { low, high } = scale([array], true);
	return high / low > 50 && array.every((x) => !(x < 0));
};
function ticks({ low, high, log }, most = 5) { // as [number, words]
	const found = [], first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
	if (log && last > first) {
		const stride = Math.ceil((last - first + 1) / most);
		for (let p = Math.ceil(first / stride) * stride; p <= last; p += stride) found.push(10 ** p);
		return found.map((t) => [t, show(t, 5, first < -4 || last > 5)]);
	}
	const rough = (high - low) / most, unit = 10 ** Math.floor(Math.log10(rough));
	const step = unit * [1, 2, 5, 10].find((n) => n * unit >= rough * 0.999);
	for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(12)));
	return found.map((t) => [t, show(t)]);
}

// A series is {x, y, color, dash, dots, bars, stems, low, high}; the last two are edges of a band.
function chart(series, { width, height = 260, x = scale(series.map((s) => s.x), false, 0.015), y, ylog = false, xlabel = "", label = xlabel }) {
	const left = 58, right = width - 12, top = 10, foot = height - (xlabel ? 40 : 24);
	y = y || scale(series.flatMap((s) => [s.y, s.low || [], s.high || [], ...(s.bars ? [1, -1].map((sign) => s.y.map((v, i) => v + sign * s.bars[i])) : [])]), ylog, 0.05);
	const px = (v) => left + part(v, x) * (right - left), py = (v) => clamp(foot - part(v, y) * (foot - top), -50, height + 50);
	const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, style: `max-width:${width}px`, role: "img", "aria-label": label });
	const path = (d, attrs) => svg.append(make("path", { d, fill: "none", ...attrs }));
	for (const [t, words] of ticks(x, 6)) {
		path(`M${px(t)} ${top}V${foot}`, { class: "faint" });
		svg.append(make("text", { x: px(t), y: foot + 15, "text-anchor": "middle" }, words));
	}
	for (const [t, words] of ticks(y)) {
		path(`M${left} ${py(t)}H${right}`, { class: "faint" });
		svg.append(make("text", { x: left - 6, y: py(t) + 4, "text-anchor": "end" }, words));
	}
	path(`M${left} ${top}V${foot}H${right}`, { class: "frame" });
	svg.append(make("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, xlabel));
	for (const s of series) {
		const fine = (i, v) => Number.isFinite(s.x[i] + v) && !(y.log && v <= 0);
		const at = (i, v) => `${px(s.x[i]).toFixed(1)} ${py(v).toFixed(1)}`;
		const all = span(s.x.length).filter((i) => fine(i, s.y[i]));
		if (s.low) {
			const ends = all.filter((i) => fine(i, s.low[i]) && fine(i, s.high[i]));
			path("M" + [...ends.map((i) => at(i, s.high[i])), ...ends.reverse().map((i) => at(i, s.low[i]))].join("L"), { fill: s.color, "fill-opacity": 0.2 });
		}
		for (const i of s.bars || s.stems ? all : []) path(s.stems ? `M${at(i, 0)}L${at(i, s.y[i])}` : `M${at(i, s.y[i] - s.bars[i])}L${at(i, s.y[i] + s.bars[i])}`, { class: "frame" });
		if (s.dots) for (const i of all) svg.append(make("circle", { cx: px(s.x[i]), cy: py(s.y[i]), r: s.x.length > 300 ? 1.8 : 3.2, fill: s.color }, make("title", {}, `${show(s.x[i])}, ${show(s.y[i])}`)));
		else path(all.map((i, k) => (k && all[k - 1] === i - 1 ? "L" : "M") + at(i, s.y[i])).join(""), { stroke: s.color, "stroke-width": 1.8, "stroke-dasharray": s.dash || "none", "stroke-linejoin": "round" });
	}
	return svg;
}

function sweep(page, header, columns) {
	const { axes, measures, statuses, records, law, counts } = header, { status, steps } = columns;
	const lanes = status.length, coords = span(axes.length), number = { steps };
	for (const name of measures) number[name] = columns["lane " + name];
	const names = ["loss", "steps", ...measures.slice(1)], shown = names.slice(0, 8);
	for (const axis of axes) {
		axis.size = (axis.values || axis.words).length;
		axis.order = span(axis.size);
		if (axis.values) {
			axis.values = axis.values.map((v) => Number(String(v).replace("inf", "Infinity")));
			axis.order.sort((a, b) => axis.values[a] - axis.values[b]);
			axis.log = spans(axis.values);
		}
		axis.rank = [];
		axis.order.forEach((i, k) => (axis.rank[i] = k));
		axis.told = (i) => (axis.values ? show(axis.values[i], 6) : axis.words[i]);
		axis.call = (i) => (axis.code ? axis.code[i] : String(axis.values[i]));
	}
	coords.forEach((k) => (axes[k].stride = axes.slice(k + 1).reduce((n, axis) => n * axis.size, 1)));
	const along = (lane, k) => Math.floor(lane / axes[k].stride) % axes[k].size;
	const index = (lane) => coords.map((k) => along(lane, k));
	const laneOf = (at) => coords.reduce((sum, k) => sum + at[k] * axes[k].stride, 0);
	const well = new Set(header.well), lost = new Set([0, ...header.failed]);
	const color = (s) => (s === 0 ? css("empty") : INKS[s] || css("ink"));
	const whole = {}, hues = {}; // scales of all numbers, and of those between which colors run
	for (const name of names) {
		const fine = number[name].filter((x, i) => !lost.has(status[i]) && Number.isFinite(x)), log = spans(fine);
		whole[name] = scale([fine], log);
		const sorted = fine.filter((_, i) => i % Math.ceil(fine.length / 20000) === 0).sort();
		hues[name] = sorted.length ? scale([[sorted[Math.floor(sorted.length * 0.01)], sorted[Math.floor(sorted.length * 0.99)]]], log) : whole[name];
	}

	const many = coords.filter((k) => axes[k].size > 1), first = law ? law.axis : many[0] || 0;
	const second = many.find((k) => k !== first);
	const state = { x: first, y: second === undefined ? -1 : second, by: "loss", curve: header.curves.includes("history.loss") ? "history.loss" : header.curves[0], at: index(0), pins: [], brushes: {} };
	const off = (k) => k !== state.x && k !== state.y;
	const here = () => laneOf(state.at), by = () => (state.by === "status" ? "loss" : state.by);
	const passes = (lane) => Object.entries(state.brushes).every(([name, [low, high]]) => {
		const x = place(name, lane);
		return x >= low && x <= high;
	});
	const brushing = () => Object.keys(state.brushes).length > 0;
	function best(count) {
		const values = number[by()], found = [];
		for (let i = 0; i < lanes; i++) {
			const x = values[i];
			if (!well.has(status[i]) || Number.isNaN(x) || (found.length === count && x >= values[found[count - 1]]) || !passes(i)) continue;
			let k = found.length;
			while (k && values[found[k - 1]] > x) k--;
			found.splice(k, 0, i);
			found.splice(count);
		}
		return found;
	}

	const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)), stops = VIRIDIS.map(rgb);
	const ramp = span(256).map((k) => {
		const i = Math.min(k >> 5, 7);
		return stops[i].map((c, n) => Math.round(c + (k / 32 - i) * (stops[i + 1][n] - c)));
	});
	let inks = {};
	const shade = (lane) => {
		const s = status[lane], x = state.by === "status" ? NaN : number[state.by][lane];
		if (lost.has(s) || Number.isNaN(x)) return (inks[s] ||= rgb(color(s)));
		const h = hues[state.by];
		return ramp[Math.round(255 * clamp(h.log && x <= 0 ? 0 : part(x, h), 0, 1))];
	};

	function prepared(target, height) {
		const width = target.clientWidth, ratio = devicePixelRatio || 1, draw = target.getContext("2d");
		Object.assign(target, { width: Math.round(width * ratio), height: Math.round(height * ratio) }).style.height = height + "px";
		draw.setTransform(ratio, 0, 0, ratio, 0, 0);
		draw.font = '11px "DejaVu Sans", sans-serif';
		draw.write = (text, x, y, room, align = "center", ink = "soft") => {
			draw.fillStyle = css(ink);
			draw.textAlign = align;
			const fits = (text) => text.length < 3 || draw.measureText(text).width <= room;
			if (!fits(text)) while (!fits((text = text.slice(0, -2) + "…")));
			draw.fillText(text, x, y);
		};
		draw.rule = (x, y, w, h, ink = "soft") => {
			draw.fillStyle = css(ink);
			draw.fillRect(x, y, w, h);
		};
		return [draw, width];
	}
	const between = (axis, x) => { // where a number lies among the sorted values, in cells; NaN outside
		const sorted = axis.order.map((i) => axis.values[i]), k = sorted.findIndex((v) => v >= x * (1 - 1e-9));
		if (k < 1) return k === 0 && sorted[0] <= x * (1 + 1e-9) ? 0 : NaN;
		return k - 1 + part(x, { low: sorted[k - 1], high: sorted[k], log: axis.log && sorted[k - 1] > 0 });
	};
	function ticked(axis, most) { // as [cell, words]
		const low = axis.values && axis.values[axis.order[0]], high = axis.values && axis.values[axis.order[axis.size - 1]];
		if (axis.values && axis.size > 4 && Number.isFinite(high - low)) {
			const found = ticks({ low, high, log: axis.log }, most).map(([t, words]) => [between(axis, t), words]).filter(([k]) => k >= 0);
			if (found.length > 1) return found;
		}
		return axis.order.map((i, k) => [k, axis.told(i)]).filter((_, k) => k % Math.ceil(axis.size / most) === 0);
	}

	const canvas = make("canvas", { class: "map", tabindex: 0, role: "application", "aria-label": "Map: arrows move, Enter pins, Escape unpins" });
	const LEFT = 66, TOP = 10;
	let area, drawn = {};
	function drawMap() {
		const narrow = canvas.clientWidth < 480, flat = state.y < 0, height = narrow ? 330 : 460;
		const [draw, width] = prepared(canvas, height), w = width - LEFT - 12, h = height - TOP - 46;
		const X = axes[state.x], Y = flat ? { size: 1, order: [0], rank: [0] } : axes[state.y], base = [...state.at];
		const lane = (i, j) => {
			base[state.x] = X.order[i];
			if (!flat) base[state.y] = Y.order[j];
			return laneOf(base);
		};
		const cx = (i) => LEFT + ((i + 0.5) * w) / X.size;
		let cy = (j) => TOP + h - ((j + 0.5) * h) / Y.size, most = narrow ? 4 : 7;
		const filtered = brushing();
		area = { w, h, X, Y, flat };
		draw.clearRect(0, 0, width, height);
		if (flat) {
			const line = scale([[whole[by()].low, whole[by()].high]], whole[by()].log, 0.05), values = number[by()];
			cy = (l) => TOP + (lost.has(status[l]) || !(part(values[l], line) >= 0) ? 4 : (1 - part(values[l], line)) * h);
			for (const [t, words] of ticks(line)) {
				const y = TOP + (1 - part(t, line)) * h;
				draw.write(words, LEFT - 7, y + 4, LEFT, "right");
				draw.rule(LEFT, y, w, 0.6, "line");
			}
			for (const i of span(X.size)) {
				const l = lane(i), r = X.size > 300 ? 2 : 4;
				draw.globalAlpha = filtered && !passes(l) ? 0.15 : 1;
				draw.fillStyle = color(status[l]);
				draw.beginPath();
				draw.arc(cx(i), cy(l), r, 0, 7);
				draw.fill();
			}
			draw.globalAlpha = 1;
		} else {
			const look = JSON.stringify({ ...state, pins: 0, at: state.at.filter((_, k) => off(k)) });
			if (look !== drawn.look) {
				drawn = { look, small: make("canvas", { width: X.size, height: Y.size }) };
				const paint = drawn.small.getContext("2d"), image = paint.createImageData(X.size, Y.size);
				for (let j = 0, to = 0; j < Y.size; j++) {
					for (let i = 0; i < X.size; i++, to += 4) {
						const l = lane(i, Y.size - 1 - j);
						image.data.set(shade(l), to);
						image.data[to + 3] = filtered && !passes(l) ? 40 : 255;
					}
				}
				paint.putImageData(image, 0, 0);
			}
			draw.imageSmoothingEnabled = false;
			draw.drawImage(drawn.small, LEFT, TOP, w, h);
			for (const [k, words] of ticked(Y, 7)) {
				draw.write(words, LEFT - 8, cy(k) + 4, LEFT - 24, "right");
				draw.rule(LEFT - 5, cy(k), 5, 0.8);
			}
		}
		for (const [k, words] of ticked(X, most)) {
			draw.write(words, cx(k), TOP + h + 18, w / Math.min(X.size, most) + 8);
			draw.rule(cx(k), TOP + h, 0.8, 5);
		}
		draw.strokeStyle = css("soft");
		draw.strokeRect(LEFT, TOP, w, h);
		draw.write(X.name, LEFT + w / 2, height - 8, w, "center", "ink");
		draw.save();
		draw.translate(11, TOP + h / 2);
		draw.rotate(-Math.PI / 2);
		draw.write(flat ? by() : Y.name, 0, 0, h, "center", "ink");
		draw.restore();
		const outlined = (line, trace) => {
			for (const [ink, more] of [["paper", 2.2], ["ring", 0]]) {
				draw.strokeStyle = css(ink);
				draw.lineWidth = line + more;
				draw.setLineDash(!more && trace.dash ? [6, 4] : []);
				draw.beginPath();
				trace(draw);
				draw.stroke();
			}
			draw.setLineDash([]);
		};
		if (law && state.x === law.axis && !flat) {
			const trace = () => span(Y.size).forEach((j) => {
				const x = cx(between(X, columns.law[lane(0, j)]));
				if (!Number.isNaN(x)) for (const end of [0.5, -0.5]) draw.lineTo(x, cy(j - end));
			});
			trace.dash = true;
			outlined(1.8, trace);
		}
		state.pins.forEach((l, n) => {
			const at = index(l);
			if (coords.some((k) => off(k) && at[k] !== state.at[k])) return;
			const x = cx(X.rank[at[state.x]]), y = flat ? cy(l) : cy(Y.rank[at[state.y]]);
			draw.fillStyle = css("ring");
			draw.beginPath();
			draw.arc(x, y, 8, 0, 7);
			draw.fill();
			draw.write(String(n + 1), x, y + 4, 16, "center", "paper");
		});
		const x = cx(X.rank[state.at[state.x]]), y = flat ? cy(here()) : cy(Y.rank[state.at[state.y]]);
		const rx = flat ? 6 : Math.max(w / X.size / 2, 4) + 1, ry = flat ? 6 : Math.max(h / Y.size / 2, 4) + 1;
		outlined(2, () => draw.rect(x - rx, y - ry, 2 * rx, 2 * ry));
	}

	const badge = (s) => swatch(color(s), statuses[s] || String(s));
	const call = (lane) => `jf.lane(grid, ${header.plain
		? axes.map((axis, k) => axis.name + "=" + axis.call(along(lane, k))).join(", ")
		: "**{" + axes.map((axis, k) => JSON.stringify(axis.name) + ": " + axis.call(along(lane, k))).join(", ") + "}"})`;
	function curve(lane) {
		const kept = records.filter((s) => s <= steps[lane]), at = lane * records.length;
		return [kept, Array.from(columns["curve " + state.curve].subarray(at, at + kept.length))];
	}
	function card(lane, title, size, among, ...buttons) {
		const rows = coords.flatMap((k) => [[axes[k].name, axes[k].told(along(lane, k))], ...axes[k].beside.map(([name, words]) => [name, words[along(lane, k)]])]);
		rows.push(["status", badge(status[lane])], ["steps", show(steps[lane])], ...measures.map((name) => [name, show(number[name][lane], 6)]));
		const kids = [make("h3", {}, title), facts(rows)];
		if (state.curve) {
			const all = among.map(curve), heights = all.map(([, y]) => y), name = state.curve.replace("history.", "");
			const own = { x: curve(lane)[0], y: curve(lane)[1], color: status[lane] ? color(status[lane]) : css("soft") };
			kids.push(div("quiet", name), chart([own], { ...size, x: scale(all.map(([x]) => x), false), y: scale(heights, spans(heights.flat()), 0.06), xlabel: "step", label: name }));
		}
		return [...kids, div("call", make("code", {}, call(lane)), copied("Copy", () => call(lane))), div("row", ...buttons)];
	}
	const reading = make("section", { class: "card", "aria-live": "polite", id: "lane" });
	const cards = make("div", { class: "cards", id: "pins" }), pinned = heading("Pinned lanes");
	const drawReading = () => reading.replaceChildren(...card(here(), "This lane", { width: 380, height: 210 }, [here()],
		button(state.pins.includes(here()) ? "Unpin" : "Pin (Enter)", () => toggle(here()), "pin")));
	function drawPins() {
		pinned.hidden = !state.pins.length;
		cards.replaceChildren(...state.pins.map((lane, n) => make("section", { class: "card" }, card(lane, `Lane ${n + 1}`, { width: 320, height: 190 }, state.pins,
			button("Unpin", () => toggle(lane)), button("Show", () => go(lane)), copied("Copy explain", () => `print(jf.explain(${call(lane)}))`)))));
	}
	function toggle(lane) {
		state.pins = state.pins.includes(lane) ? state.pins.filter((l) => l !== lane) : [...state.pins, lane];
		run(drawPins, drawReading, drawMap);
	}
	const go = (lane) => drawAll((state.at = index(lane)));

	const bestTitle = heading(""), bestBox = make("div", { id: "best" });
	function drawBest() {
		const head = [...axes.map((axis) => axis.name), "status", ...shown], left = head.map((name, i) => i === axes.length);
		bestTitle.textContent = `The best by ${by()}${brushing() ? ", of the lanes brushed" : ""}`;
		bestBox.replaceChildren(table(head, best(10).map((lane) => make("tr", { tabindex: 0, onclick: () => go(lane), onkeydown: (e) => e.key === "Enter" && go(lane) },
			cells([...coords.map((k) => axes[k].told(along(lane, k))), badge(status[lane]), ...shown.map((name) => show(number[name][lane], 6))], left))), left));
		if (!bestBox.querySelector("td")) bestBox.append("No lane ended well.");
	}

	const lines = make("canvas", { id: "parallel", "aria-label": "Parallel coordinates" });
	const stands = [...many, ...shown].map((of) => {
		const axis = axes[of], s = whole[of];
		return axis ? { name: "axis " + of, title: axis.name, ends: [0, axis.size - 1].map((k) => axis.told(axis.order[k])) }
			: { name: of, title: of, ends: [show(s.low, 3), show(s.high, 3)] };
	});
	function place(name, lane) { // from 0 to 1; NaN where there is no number
		if (name.startsWith("axis ")) {
			const axis = axes[name.slice(5)];
			return axis.rank[along(lane, name.slice(5))] / (axis.size - 1);
		}
		const x = number[name][lane];
		return status[lane] === 0 ? NaN : whole[name].log && x <= 0 ? 0 : clamp(part(x, whole[name]), 0, 1);
	}
	const HEAD = 40, TALL = 300, RUN = TALL - HEAD - 26;
	const gap = () => (lines.clientWidth - 92) / Math.max(stands.length - 1, 1), across = (k) => 46 + k * gap();
	function drawLines() {
		lines.style.minWidth = 76 * stands.length + "px";
		const [draw, width] = prepared(lines, TALL), filtered = brushing(), stride = Math.ceil(lanes / 2500), kept = [], rest = [];
		for (let i = 0; i < lanes; i++) {
			if (filtered && kept.length < 2500 && passes(i)) kept.push(i);
			else if (i % stride === 0) rest.push(i);
		}
		draw.clearRect(0, 0, width, TALL);
		const line = (lane, ink, alpha) => {
			draw.globalAlpha = alpha;
			draw.strokeStyle = ink;
			draw.beginPath();
			stands.forEach(({ name }, k) => {
				const y = place(name, lane);
				if (!Number.isNaN(y)) draw.lineTo(across(k), HEAD + (1 - y) * RUN);
			});
			draw.stroke();
		};
		for (const lane of rest) line(lane, filtered ? css("line") : `rgb(${shade(lane)})`, filtered ? 0.3 : clamp(6 / Math.sqrt(rest.length), 0.12, 0.7));
		for (const lane of kept) line(lane, `rgb(${shade(lane)})`, clamp(6 / Math.sqrt(kept.length), 0.15, 0.9));
		draw.lineWidth = 2.5;
		line(here(), css("ring"), 1);
		stands.forEach(({ name, title, ends }, k) => {
			const x = across(k), room = Math.min(gap() - 6, 110), brush = state.brushes[name];
			draw.rule(x - 0.5, HEAD, 1, RUN);
			draw.write(ends[1], x, HEAD - 6, room);
			draw.write(ends[0], x, TALL - 10, room);
			draw.write(title, x, 14, k && k < stands.length - 1 ? room : 90, "center", "ink");
			draw.globalAlpha = 0.4;
			if (brush) draw.rule(x - 8, HEAD + (1 - brush[1]) * RUN, 16, Math.max((brush[1] - brush[0]) * RUN, 2), "accent");
			draw.globalAlpha = 1;
		});
	}
	let drag = null;
	const high = (e) => clamp(1 - (e.offsetY - HEAD) / RUN, 0, 1);
	lines.addEventListener("pointerdown", (e) => {
		drag = { name: stands[clamp(Math.round((e.offsetX - 46) / gap()), 0, stands.length - 1)].name, from: high(e) };
		delete state.brushes[drag.name];
		lines.setPointerCapture(e.pointerId);
	});
	lines.addEventListener("pointermove", (e) => {
		if (!drag) return;
		const ends = [high(e), drag.from].sort((a, b) => a - b);
		delete state.brushes[drag.name];
		if (ends[1] - ends[0] > 0.02) state.brushes[drag.name] = [ends[0] - 1e-9, ends[1] + 1e-9];
		later(drawLines);
	});
	lines.addEventListener("pointerup", () => {
		drag = null;
		brushed();
	});
	const kept = make("span", { class: "quiet", id: "kept" }), clear = button("Clear", () => {
		state.brushes = {};
		brushed();
	}, "clear");
	function brushed() {
		clear.hidden = !brushing();
		kept.textContent = brushing() ? `${show(span(lanes).filter(passes).length)} of ${show(lanes)} lanes` : "Drag along an axis to keep a part; click to clear.";
		run(drawMap, drawBest, drawLines);
	}

	const tools = div("tools"), sliders = div("tools"), key = div("");
	const choice = (id, words, options, value, change) => make("label", {}, words, make("select", { id, onchange: (e) => {
		change(e.target.value);
		drawAll();
	} }, options.map(([v, told]) => make("option", { value: v, selected: v === value }, told))));
	function drawTools() {
		const list = coords.map((k) => [k, axes[k].name]), set = (own, other) => (v) => {
			if (Number(v) === state[other]) state[other] = state[own] < 0 ? coords.find((k) => k !== Number(v)) : state[own];
			state[own] = Number(v);
		};
		tools.replaceChildren(choice("x", "across", list, state.x, set("x", "y")),
			list.length > 1 ? choice("y", "up", [[-1, "the number"], ...list], state.y, set("y", "x")) : "",
			choice("by", "color", ["status", ...names].map((n) => [n, n]), state.by, (v) => (state.by = v)),
			header.curves.length > 1 ? choice("curve", "curve", header.curves.map((n) => [n, n.replace("history.", "")]), state.curve, (v) => (state.curve = v)) : "");
		sliders.replaceChildren(...many.filter(off).map((k) => {
			const axis = axes[k], told = make("span", {}, axis.told(state.at[k]));
			return make("label", {}, axis.name, make("input", { type: "range", max: axis.size - 1, value: axis.rank[state.at[k]], oninput: (e) => {
				state.at[k] = axis.order[e.target.value];
				told.textContent = axis.told(state.at[k]);
				later(drawLane);
			} }), told);
		}));
	}
	function drawKey() {
		const ramped = state.by !== "status" && state.y >= 0, hue = hues[state.by];
		const kids = Object.keys(statuses).map(Number).filter((s) => counts[s] && (!ramped || lost.has(s))).map(badge);
		if (law && state.x === law.axis && state.y >= 0) kids.push(make("span", { class: "law" }, law.words));
		key.replaceChildren(ramped ? div("scale", state.by + (hue.log ? " (log)" : ""), make("span", {}, show(hue.low, 3)), make("i", { style: `background:linear-gradient(90deg,${VIRIDIS})` }), make("span", {}, show(hue.high, 3))) : "", div("key", ...kids));
	}
	const waiting = new Set(), later = (draw) => waiting.add(draw).size > 1 || requestAnimationFrame(() => {
		run(...waiting);
		waiting.clear();
	});
	const drawLane = () => run(drawMap, drawReading, drawLines);
	function drawAll() {
		inks = {};
		drawn = {};
		run(drawTools, drawKey, drawPins, drawReading, brushed);
	}
	function pointed(e) {
		const { w, h, X, Y, flat } = area, i = Math.floor(((e.offsetX - LEFT) / w) * X.size), j = Math.floor((1 - (e.offsetY - TOP) / h) * Y.size);
		if (!(i in X.order) || !(j in Y.order)) return false;
		state.at[state.x] = X.order[i];
		if (!flat) state.at[state.y] = Y.order[j];
		return true;
	}
	canvas.addEventListener("pointermove", (e) => pointed(e) && later(drawLane));
	canvas.addEventListener("click", (e) => pointed(e) && toggle(here()));
	canvas.addEventListener("keydown", (e) => {
		const [k, way] = { ArrowRight: [state.x, 1], ArrowLeft: [state.x, -1], ArrowUp: [state.y, 1], ArrowDown: [state.y, -1] }[e.key] || [-1];
		if (k >= 0) {
			state.at[k] = axes[k].order[clamp(axes[k].rank[state.at[k]] + way, 0, axes[k].size - 1)];
			drawLane();
		} else if (e.key !== "Enter") return;
		else if (!state.pins.includes(here())) toggle(here());
		e.preventDefault();
	});
	document.addEventListener("keydown", (e) => {
		if (e.key === "Escape" && state.pins.length) toggle(state.pins.includes(here()) ? here() : state.pins[state.pins.length - 1]);
	});

	const met = Object.keys(statuses).filter((s) => counts[s]), total = met.reduce((sum, s) => sum + counts[s], 0);
	page.replaceChildren(
		make("h1", {}, header.title),
		make("p", { class: "quiet" }, `${show(total)} lanes: ${met.map((s) => `${show(counts[s])} ${statuses[s]}`).join(", ")}`),
		div("bar", ...met.map((s) => make("span", { style: `flex:${counts[s]};background:${color(Number(s))}` }))),
		...header.notes.map((note) => make("p", { class: "note" }, note)), tools, sliders,
		div("split", div("", canvas, key), reading), pinned, cards, bestTitle, bestBox,
		heading("All lanes"), div("tools", kept, clear), div("scroll", lines), heading("Provenance"), facts(header.provenance));
	state.at = index(best(1)[0] || 0);
	drawAll();
	return drawAll;
}

function fit(page, header, columns) {
	const drawn = ({ title, text, note, rows, head, left, copies, series, ...how }) => {
		if (title || text) return title ? heading(title) : make("p", { class: note ? "note" : "" }, text);
		if (rows) return table(head, rows.map((row) => make("tr", {}, cells(row, left))), left);
		if (copies) return div("row", ...copies.map(([words, told]) => copied(words, () => told)));
		const inks = { blue: css("accent"), orange: ORANGE, ink: css("ink") };
		const full = series.map((s) => ({ ...Object.fromEntries(Object.entries(s).map(([k, v]) => [k, columns[v] ? [...columns[v]] : v])), color: inks[s.color] }));
		return [chart(full, { width: Math.min(page.clientWidth - 28, 760), ...how }), div("key", ...full.filter((s) => s.words).map((s) => swatch(s.color, s.words)))];
	};
	const draw = () => page.replaceChildren(make("h1", {}, header.title), ...header.blocks.flatMap(drawn), heading("Provenance"), facts(header.provenance));
	draw();
	return draw;
}

async function main() {
	const page = document.getElementById("page");
	try {
		if (!window.DecompressionStream) throw new Error("this browser is older than 2023");
		const [header, columns] = await unpack(document.getElementById("data").textContent);
		const again = { sweep, fit }[header.kind](page, header, columns);
		let width = innerWidth;
		addEventListener("resize", () => width !== innerWidth && (width = innerWidth) && again());
		matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
		document.documentElement.dataset.ready = "yes";
	} catch (error) {
		page.replaceChildren(make("p", { class: "note" }, `Not shown: ${error.message}`));
		throw error;
	}
}
main();
