"""MSAM (Sec. 4): tracks and users are encoded once, windows read through them, U h* ranks the catalogue."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msam.config import MSAMConfig
from msam.network.attention import GROUP_COMPONENTS, Attention, GroupAttention, ModalityAttention, masked_softmax
from msam.network.copy_head import CopyHead, occurrences
from msam.network.encoders import AudioMLP, BiLSTM, TextCNN, WindowLSTM, take
from msam.network.inputs import FIELDS, TrackInputs, UserInputs, spans
from msam.network.normalise import Standardise
from msam.network.rows import ContentRows, FreeRows, RawContent
from msam.network.sides import Explanation, Hidden, TrackSide, UserSide
from msam.network.wide import WideHead, WideInputs

_GOLDEN = -7046029254386353131  # 2^64 over the golden ratio, as an int64 (Knuth, vol. 3, 6.4)
PART = 1024  # tracks per call where all tracks of training are gone through


def by_chance(window: Tensor) -> Tensor:
    """Places [B, K] of the plays of each window in an order that follows from which they are, not from when they were.

    Another window has another order of the same plays: one order of all tracks would be something to learn from.
    """
    key = (window + 1) * (2 * window.sum(1, keepdim=True) + 1) * _GOLDEN  # the overflow is what mixes
    first = torch.iinfo(key.dtype).min
    return key.where(window >= 0, first).argsort(1)


class MSAM(nn.Module):
    """The network for a catalogue with `rows` trained tracks. Nothing in it depends on track ids."""

    cold_scale: Tensor
    cold_offset: Tensor

    def __init__(self, config: MSAMConfig, rows: int) -> None:
        super().__init__()
        self.config = config
        self.row_count = rows
        d, joined = config.dim, 2 * config.dim + 2
        self.factor_scale = Standardise(d)
        self.artist_scale = Standardise(d)
        self.audio_scale = Standardise(config.audio_groups, config.audio_width)
        self.audio_mlp = AudioMLP(config.audio_groups, config.audio_width, joined, config.hidden)
        self.text_cnn = TextCNN(config.text_dim, config.kernel_widths, joined, config.hidden)
        self.series = nn.Linear(FIELDS * config.text_dim + FIELDS + joined, d)
        self.score = nn.Linear(1, d, bias=False)
        self.audio_attention = Attention(config.hidden, d, config.attention)
        self.text_attention = Attention(self.text_cnn.channels, d, config.attention)
        self.modality = ModalityAttention(d, config.attention)
        self.sequence = BiLSTM(d, config.hidden)
        self.sequence_project = nn.Linear(2 * config.hidden, d)
        self.fused_lstm = WindowLSTM(d, config.state)
        self.plain_lstm = WindowLSTM(d, config.state)
        self.groups: GroupAttention | None = None
        if config.group_attention:
            self.groups = GroupAttention(config.audio_groups, config.audio_width, config.attention)
        self.dropout = nn.Dropout(config.dropout)
        self.raw_content: RawContent | None = None
        self.u: ContentRows | FreeRows
        if config.content_rows:
            self.raw_content = RawContent(config, joined)
            self.u = ContentRows(self.raw_content.width, rows, config.state)
        else:
            self.u = FreeRows(joined + 3 * d, rows, config.state)
        self.tie = nn.Linear(config.state, d, bias=False) if config.tied_rows else None
        # What makes the scores of cold tracks comparable with those of trained ones; `msam.cold` fits them.
        self.register_buffer("cold_scale", torch.ones(()))
        self.register_buffer("cold_offset", torch.zeros(()))
        self.copy_head: CopyHead | None = None
        if config.copy_head:
            self.copy_head = CopyHead(d, config.state, config.hidden, config.window, rows)
        self.wide_head = WideHead(config.wide_inputs) if config.wide_head else None

    # -- tracks and users -------------------------------------------------------------------------------------

    def fit_scales(self, inputs: TrackInputs) -> None:
        """Fit what only describes the inputs (means, scales, components) on the tracks of training."""
        self.factor_scale.fit(inputs.factor, inputs.factor_mask)
        self.artist_scale.fit(inputs.artist_factor, inputs.artist_mask)
        self.audio_scale.fit(inputs.audio, inputs.audio_mask)
        audio = self.audio_scale(inputs.audio, inputs.audio_mask)
        if self.groups is not None:
            self.groups.fit(audio, inputs.audio_mask)
        if self.raw_content is not None:
            self.raw_content.fit(inputs, audio)
        elif self.config.simf_rows:
            assert isinstance(self.u, FreeRows)
            self.u.start(self._joined(inputs)[:, : self.config.state])

    def _joined(self, inputs: TrackInputs) -> Tensor:
        """The SiMF factors of track and artist that join every branch, with their masks: [n, 2d + 2]."""
        return torch.cat(
            [
                self.factor_scale(inputs.factor, inputs.factor_mask),
                self.artist_scale(inputs.artist_factor, inputs.artist_mask),
                inputs.factor_mask.unsqueeze(1).float(),
                inputs.artist_mask.unsqueeze(1).float(),
            ],
            1,
        )

    def content(self, inputs: TrackInputs) -> Tensor:
        """Fixed description of n tracks from which content rows are made: [n, C]. Only with `content_rows`."""
        assert self.raw_content is not None
        return self.raw_content(  # type: ignore[no-any-return]
            inputs, self.audio_scale(inputs.audio, inputs.audio_mask), self._joined(inputs)
        )

    def _groups(self, audio: Tensor, mask: Tensor) -> Tensor:
        """Standardised audio [n, G, A] as group attention reads it [n, G, R], R = 0 without it."""
        return audio[..., :0] if self.groups is None else self.groups.encode(audio, mask)

    @torch.no_grad()
    def all_groups(self, inputs: TrackInputs) -> Tensor:
        """What rows have beside those of U, of many tracks: [n, G * R]."""
        audio = self.audio_scale(inputs.audio, inputs.audio_mask)
        return self._groups(audio, inputs.audio_mask).flatten(1)

    @torch.no_grad()
    def all_content(self, inputs: TrackInputs) -> Tensor:
        """`content` of many tracks, a part at a time, without gradients."""
        return torch.cat([self.content(inputs.select(part)) for part in spans(len(inputs), PART)])

    def encode_tracks(self, inputs: TrackInputs) -> TrackSide:
        """The part of the network that sees only the track (Eq. 13-15, 19-23)."""
        joined = self._joined(inputs)
        audio_in = self.audio_scale(inputs.audio, inputs.audio_mask)
        groups = self.dropout(self.audio_mlp(audio_in, joined))
        audio = self.audio_attention(groups, inputs.audio_mask.unsqueeze(1).expand(-1, groups.shape[1]))
        words = self.dropout(self.text_cnn(inputs.words.float(), inputs.word_mask, joined))
        text = self.text_attention(words, inputs.word_mask)
        pooled, fields = inputs.pooled()
        series = self.series(torch.cat([pooled.flatten(1), fields.float(), joined], 1))
        if isinstance(self.u, ContentRows):
            content = self.u.map(self.content(inputs))
        else:
            content = self.u.cold(torch.cat([joined, audio.value, text.value, series], 1).detach())
        return TrackSide(
            series,
            audio.value,
            self.modality.audio(audio.value),
            audio.present,
            audio.weights,
            text.value,
            text.log_sum,
            text.present,
            text.weights,
            content,
            self._groups(audio_in, inputs.audio_mask),
        )

    def encode_users(self, users: UserInputs) -> UserSide:
        """Profile words, convolved apart from any track's (no kernel straddles the two)."""
        words = self.dropout(self.text_cnn(users.words.float(), users.mask))
        return UserSide(*self.text_attention(words, users.mask))

    def tied(self, side: TrackSide, trained: Tensor) -> TrackSide:
        """The tracks with their rows of U as a part of the input, where rows are tied; trained as for `rows`."""
        return side if self.tie is None else self.with_rows(side, self._known_or(side.content, trained))

    def with_rows(self, side: TrackSide, rows: Tensor) -> TrackSide:
        """`tied`, given the rows [n, 2d], for a model that ties them."""
        assert self.tie is not None
        return TrackSide(side.series + self.tie(rows), *side[1:])

    # -- windows ----------------------------------------------------------------------------------------------

    def forward(self, side: TrackSide, window: Tensor, user: UserSide, order: Tensor | None = None) -> Hidden:
        """State after B windows (Eq. 16-25).

        side: n tracks; window int64 [B, K]: rows of side, oldest first, left padded with -1; user: B users; order
        int64 [B, K]: places of each window's plays in the order in which they are read (padding first), if not theirs.
        """
        if not self.config.order:
            order = by_chance(window)
        if order is None:
            return self._read(side, window, user)
        read, back = self._read(side, window.gather(1, order), user), order.argsort(1)
        state, query, fused, gamma, share, mask = read
        return Hidden(state, query, take(fused, back), take(gamma, back), take(share, back), mask)

    def _read(self, side: TrackSide, window: Tensor, user: UserSide) -> Hidden:
        mask = window >= 0
        lengths = mask.sum(1)
        shape, flat = window.shape, window.clamp(min=0).flatten()

        def gather(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, flat).view(*shape, *tensor.shape[1:])

        score = (occurrences(window) / self.config.window).unsqueeze(-1)  # m/k
        series = self.dropout(gather(side.series) + self.score(score)) * mask.unsqueeze(-1)
        sequence = self.sequence_project(self.dropout(self.sequence(series, lengths)))  # c' (Eq. 21)
        words = gather(side.text), gather(side.text_lse), gather(side.text_present)
        text, share, text_present = self._union(*words, user)
        present = torch.stack([gather(side.audio_present), text_present, torch.ones_like(mask)], -1)
        fused, gamma = self.modality(
            (gather(side.audio), text, sequence), gather(side.audio_score), present & mask.unsqueeze(-1)
        )
        _, attended = self.fused_lstm(self.dropout(fused), lengths)  # h' (Eq. 25)
        _, plain = self.plain_lstm(series, lengths)  # h
        state = query = self.dropout((plain + attended) / 2)
        if self.groups is not None:
            heeded = self.groups(gather(side.groups), gather(side.audio_present) & mask)
            query = torch.cat([state, heeded], 1)
        return Hidden(state, query, fused, gamma, share * mask.unsqueeze(-1), mask)

    @staticmethod
    def _union(text: Tensor, log_sum: Tensor, present: Tensor, user: UserSide) -> tuple[Tensor, Tensor, Tensor]:
        """One softmax over the words of track and user, joined from the two log-sum-exps.

        text [B, K, D], log_sum and present [B, K] -> b_att [B, K, D], shares [B, K, 2], present [B, K].
        """
        user_present = user.text_present.unsqueeze(1).expand_as(present)
        both = torch.stack([present, user_present], -1)
        sums = torch.stack([log_sum, user.text_lse.unsqueeze(1).expand_as(log_sum)], -1)
        share = masked_softmax(sums, both)
        value = share[..., :1] * text + share[..., 1:] * user.text.unsqueeze(1)
        return value, share, both.any(-1)

    def explain(self, hidden: Hidden, side: TrackSide, window: Tensor, user: UserSide) -> Explanation:
        """Weights of every play; those of words are out of the union of track and user words."""
        flat = window.clamp(min=0).flatten()
        mask = hidden.mask.unsqueeze(-1)
        beta = side.beta.index_select(0, flat).view(*window.shape, -1) * mask
        alpha = side.alpha.index_select(0, flat).view(*window.shape, -1) * hidden.text_share[..., :1]
        return Explanation(hidden.gamma, beta, alpha, user.alpha.unsqueeze(1) * hidden.text_share[..., 1:])

    @property
    def row_width(self) -> int:
        """Size of a row as `rows` makes them: 2d, and what group attention multiplies."""
        heeded = 0 if self.groups is None else self.config.audio_groups * GROUP_COMPONENTS
        return self.config.state + heeded

    # -- rows of U and logits ---------------------------------------------------------------------------------

    def trained_rows(self) -> Tensor:
        """Rows of the tracks of training [M, 2d], as they were when training ended."""
        return self.u.frozen if isinstance(self.u, ContentRows) else self.u.weight.detach()

    def cold_rows(self, side: TrackSide) -> Tensor:
        """Rows from content alone [n, 2d]."""
        return side.content * self.cold_scale

    def rows(self, side: TrackSide, trained: Tensor) -> Tensor:
        """Rows for the n tracks of side, [n, 2d] or wider with what group attention multiplies.

        trained int64 [n]: place among the tracks of training, -1 for a cold one.
        """
        rows = self._known_or(self.cold_rows(side), trained)
        if self.groups is None:
            return rows
        scale = torch.where(trained >= 0, 1.0, self.cold_scale).unsqueeze(1)
        return torch.cat([rows, side.groups.flatten(1) * scale], 1)

    def _known_or(self, cold: Tensor, trained: Tensor) -> Tensor:
        if self.row_count == 0:
            return cold
        known = self.trained_rows().index_select(0, trained.clamp(min=0))
        return torch.where((trained >= 0).unsqueeze(1), known, cold)

    def offsets(self, trained: Tensor) -> Tensor:
        """What is added to the logits of the n tracks [n]: the cold tracks' offset, 0 for those of training."""
        return torch.where(trained >= 0, 0.0, self.cold_offset)

    def copy_scores(self, hidden: Hidden, window: Tensor) -> Tensor:
        """Pointer scores of the plays [B, K]; 0 without the copy head and for all but a track's newest play."""
        if self.copy_head is None:
            return torch.zeros(window.shape, dtype=hidden.state.dtype)
        scores: Tensor = self.copy_head(hidden, window)
        return scores

    def logits(self, hidden: Hidden, rows: Tensor, window: Tensor) -> Tensor:
        """U h* (Eq. 26) plus the copy scores, for one softmax: `rows` of n tracks, window int64 [B, K] -> [B, n]."""
        logits = hidden.query @ rows.T
        if self.copy_head is None:
            return logits
        return logits.scatter_add(1, window.clamp(min=0), self.copy_scores(hidden, window))

    def join(self, logits: Tensor, wide: WideInputs | None) -> Tensor:
        """Logits [B, n], offsets included, with the wide head's scores of candidates; as they are without either."""
        if self.wide_head is None or wide is None:
            return logits
        return self.wide_head.join(logits, wide)

    @torch.no_grad()
    def finish(self, inputs: TrackInputs) -> None:
        """End of training: freeze the rows of its tracks, or fit the map that gives later tracks theirs."""
        if isinstance(self.u, ContentRows):
            self.u.freeze(self.all_content(inputs))
            return
        self.eval()
        features = []
        for part in (inputs.select(index) for index in spans(len(inputs), PART)):
            side = self.encode_tracks(part)
            features.append(torch.cat([self._joined(part), side.audio, side.text, side.series], 1))
        self.u.fit_cold(torch.cat(features))
